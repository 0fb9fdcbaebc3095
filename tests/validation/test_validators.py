"""Each validator against a folder that is right and one that is wrong in one place: it must name that place."""

import importlib.util
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from toolkit import validation
from toolkit.errors import UsageError
from toolkit.validation import FAILED, NOT_CHECKED, NOTHING, PASSED, Folder, programs

POD = {
    "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "main",
            "image": "registry.example/x@sha256:" + "0" * 64,
            "ports": [{"name": "http", "containerPort": 8000}],
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}
LABELS = {"app": "x"}


def deployment(**changes):
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "x"},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": LABELS},
            "template": {"metadata": {"labels": LABELS}, "spec": POD},
            **changes,
        },
    }


def service(**changes):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "x"},
        "spec": {"selector": LABELS, "ports": [{"name": "http", "port": 8000, "targetPort": "http"}], **changes},
    }


def pod_with(**changes):
    return deployment(template={"metadata": {"labels": LABELS}, "spec": {**POD, **changes}})


def text_of(*documents):
    return yaml.safe_dump_all(documents, sort_keys=False)


COMPOSE = """\
services:
  triton:
    image: x
    deploy: {resources: {reservations: {devices: [{driver: nvidia, device_ids: [GPU-1], capabilities: [gpu]}]}}}
"""
RULES = """\
groups:
  - name: x
    rules:
      - record: trtk:requests:rate5m
        expr: sum by (model) (rate(nv_inference_request_success[5m]))
"""
BOARD = '{"panels": [{"targets": [{"expr": "rate(nv_inference_count{server=~\\"$server\\"}[$__rate_interval])"}]}]}'
SCALER = {
    "apiVersion": "keda.sh/v1alpha1",
    "kind": "ScaledObject",
    "metadata": {"name": "x"},
    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "x"}, "triggers": []},
}


def scaler(query):
    return {
        **SCALER,
        "spec": {**SCALER["spec"], "triggers": [{"type": "prometheus", "metadata": {"query": query}}]},
    }


#: validator → (right files, wrong files, where and what it must say)
CASES = {
    "yamllint": ({"a.yaml": "a: 1\n"}, {"a.yaml": "a: 1\na: 2\n"}, "a.yaml:2", "duplication of key"),
    "json": ({"a.json": "{}\n"}, {"a.json": "{,}\n"}, "a.json", "it is no JSON"),
    "kubernetes-validate": (
        {"a.yaml": text_of(deployment(), service())},
        {"a.yaml": text_of(service(), deployment(replicaz=2))},
        "a.yaml Deployment/x spec",
        "replicaz",
    ),
    "references": (
        {"a.yaml": text_of(deployment(), service())},
        {"a.yaml": text_of(deployment(), service(selector={"app": "y"}))},
        "a.yaml Service/x",
        "no pod here has the labels {'app': 'y'}",
    ),
    "pod security": (
        {"a.yaml": text_of(deployment())},
        {"a.yaml": text_of(pod_with(hostNetwork=True))},
        "a.yaml Deployment/x spec.template.spec",
        "hostNetwork is set",
    ),
    "compose-spec": (
        {"compose.yaml": COMPOSE},
        {"compose.yaml": COMPOSE.replace(", capabilities: [gpu]", "")},
        "compose.yaml",
        "missing field `capabilities`",
    ),
    "shellcheck": (
        {"run.sh": '#!/bin/sh\necho "$1"\n'},
        {"run.sh": "#!/bin/sh\necho $1\n"},
        "run.sh:2",
        "SC2086",
    ),
    "hadolint": (
        {"Dockerfile": "FROM registry.example/x:1.0\nUSER 1000\n"},
        {"Dockerfile": "FROM registry.example/x:latest\nUSER 1000\n"},
        "Dockerfile:1",
        "DL3007",
    ),
    "promtool": (
        {"alerts.yml": RULES},
        {"alerts.yml": RULES.replace("sum by (model) (", "sum by (model) ((")},
        "alerts.yml",
        "could not parse expression",
    ),
    "promql-parser": (
        {"board.json": BOARD},
        {"board.json": BOARD.replace("nv_inference_count", "nv_inference_cuont")},
        "board.json",
        "nobody exports nv_inference_cuont",
    ),
    "python-hcl2": (
        {"main.tf": 'resource "a" "b" {\n  name = "x"\n}\n'},
        {"main.tf": 'resource "a" "b" {\n  name = = "x"\n}\n'},
        "main.tf:2",
        "",
    ),
    "secrets": (
        {"a.yaml": "token: ${TOKEN}\npassword_file: /run/secrets/p\n"},
        {"a.yaml": "x: 1\ny: hf_" + "a" * 34 + "\n"},
        "a.yaml:2",
        "a Hugging Face token stands in it",
    ),
}


def results_of(path, files):
    for name, text in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    return {result.name: result.outcome for result in validation.examine(path)}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Leave out what takes seconds to start; it has tests of its own."""
    found = programs.found
    monkeypatch.setattr(programs, "found", lambda name: None if name in {"checkov", "cloud-init"} else found(name))


@pytest.mark.parametrize("name", CASES)
def test_a_right_folder_passes_and_a_wrong_one_is_named_by_its_place(name, tmp_path):
    right, wrong, place, says = CASES[name]
    if name == "promtool" and shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")

    passed = results_of(tmp_path / "right", right)[name]
    failed = results_of(tmp_path / "wrong", wrong)[name]

    assert (passed.state, passed.problems) == (PASSED, ())
    assert failed.state == FAILED
    assert [one.place for one in failed.problems] == [place]
    assert says in failed.problems[0].says


def test_every_validator_is_tried():
    own = {"checkov", "cloud-init schema", "docker compose config", "helm template", "jsonschema", "terraform fmt"}
    assert {one.name for one in validation.catalogue()} == set(CASES) | own


def problems(path, files, name):
    return [(one.place, one.says) for one in results_of(path, files)[name].problems]


def test_a_kind_that_nobody_knows_and_one_that_was_removed_fail(tmp_path):
    removed = {"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "x"}}
    unknown = {"apiVersion": "example.org/v1", "kind": "Thing", "metadata": {"name": "y"}}

    found = problems(tmp_path, {"a.yaml": text_of(removed, unknown)}, "kubernetes-validate")

    assert [place for place, _ in found] == ["a.yaml HorizontalPodAutoscaler/x", "a.yaml Thing/y"]
    assert all("no schema here describes one" in says for _, says in found)


def test_a_custom_resource_is_held_to_its_field_table_and_its_pods_to_kubernetes(tmp_path):
    pod = {"containers": [{"name": "main", "image": "x", "livenessProbe": {"failureThresholds": 3}}]}
    graph = {
        "apiVersion": "nvidia.com/v1beta1",
        "kind": "DynamoGraphDeployment",
        "metadata": {"name": "x", "namespace": "y"},
        "spec": {
            "backendFramework": "tensorrt",
            "components": [
                {"name": "w", "type": "worker", "replicas": 1, "podTemplate": {"spec": pod}},
            ],
        },
    }

    found = problems(tmp_path, {"a.yaml": text_of(graph)}, "jsonschema")

    assert ("a.yaml DynamoGraphDeployment/x spec.backendFramework", "'tensorrt' is not one of") in [
        (place, says[:24]) for place, says in found
    ]
    assert any("spec.components.0.podTemplate.spec" in place and "failureThresholds" in says for place, says in found)


def test_what_an_autoscaler_asks_is_read_by_a_promql_parser(tmp_path):
    right = "sum(nv_trt_llm_request_metrics{request_type='waiting'})"
    assert problems(tmp_path / "1", {"a.yaml": text_of(deployment(), scaler(right))}, "promql-parser") == []

    ((place, _),) = problems(tmp_path / "2", {"a.yaml": text_of(deployment(), scaler("sum(("))}, "promql-parser")
    assert place == "a.yaml ScaledObject/x"


@pytest.mark.parametrize(
    ("documents", "place", "says"),
    [
        ((deployment(), deployment()), "Deployment/x", "another object has the same kind and name"),
        ((service(ports=[{"port": 1, "targetPort": "grpc"}]), deployment()), "Service/x", "has a port named grpc"),
        ((scaler("up"),), "ScaledObject/x", "it scales Deployment/x, which is not here"),
        ((pod_with(volumes=[{"name": "v", "configMap": {"name": "lost"}}]),), "Deployment/x", "ConfigMap lost"),
    ],
)
def test_a_reference_that_leads_nowhere_is_named(documents, place, says, tmp_path):
    found = problems(tmp_path, {"a.yaml": text_of(*documents)}, "references")

    assert found
    assert all(place in where and says in what for where, what in found)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "the volume v is a hostPath"),
        ({"securityContext": {"runAsNonRoot": True}}, "container main: seccompProfile is not RuntimeDefault"),
        (
            {"containers": [{**POD["containers"][0], "securityContext": {"capabilities": {"drop": ["ALL"]}}}]},
            "container main: allowPrivilegeEscalation is not false",
        ),
    ],
)
def test_a_pod_that_is_not_restricted_is_named_unless_its_object_says_why(changes, says, tmp_path):
    one = pod_with(**changes)
    excused = {**one, "metadata": {"name": "x", "annotations": {"trtk/pod-security-exception": "it must"}}}

    assert [what for _, what in problems(tmp_path / "1", {"a.yaml": text_of(one)}, "pod security")] == [says]
    outcome = results_of(tmp_path / "2", {"a.yaml": text_of(excused)})["pod security"]
    assert (outcome.state, outcome.not_checked) == (NOT_CHECKED, ("a.yaml Deployment/x: it must",))


@pytest.mark.parametrize(
    "text",
    [
        'env: "nvapi-' + "b" * 40 + '"\n',
        "url: https://me:hunter2@example.org/x\n",
        "admin_password: hunter2\n",
        "-----BEGIN RSA PRIVATE KEY-----\n",
        yaml.safe_dump({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}, "stringData": {"a": "b"}}),
    ],
)
def test_a_secrets_value_is_found_in_every_shape(text, tmp_path):
    assert len(problems(tmp_path, {"a.yaml": text}, "secrets")) == 1


def test_what_is_not_installed_is_said_and_is_not_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "found", lambda name: None)  # noqa: ARG005
    files = {"run.sh": "#!/bin/sh\n", "alerts.yml": RULES, "compose.yaml": COMPOSE, "a.yaml": text_of(deployment())}

    outcomes = results_of(tmp_path, files)

    for name, hint in (("shellcheck", "pip install"), ("promtool", "apt-get install"), ("checkov", "pipx install")):
        assert outcomes[name].state == NOT_CHECKED
        assert hint in outcomes[name].not_checked[0]
    assert outcomes["hadolint"].state == NOTHING


CHART = {
    "chart/Chart.yaml": "apiVersion: v2\nname: x\nversion: 0.1.0\n",
    "chart/values.yaml": "replicas: 1\n",
}


def test_a_charts_objects_are_validated_as_helm_renders_them(tmp_path):
    need_helms_library()
    template = text_of(deployment()).replace("replicas: 1", "replicas: {{ .Values.replicas }}")
    right = results_of(tmp_path / "1", {**CHART, "chart/templates/x.yaml": template})
    wrong = results_of(tmp_path / "2", {**CHART, "chart/templates/x.yaml": template.replace("replicas:", "replicaz:")})
    broken = results_of(tmp_path / "3", {**CHART, "chart/templates/x.yaml": "{{ .Values.replicas | nonsense }}\n"})

    assert (right["helm template"].state, right["kubernetes-validate"].checked) == (PASSED, 1)
    assert [one.place for one in wrong["kubernetes-validate"].problems] == ["chart/templates/x.yaml Deployment/x spec"]
    assert broken["helm template"].state == FAILED
    assert "nonsense" in broken["helm template"].problems[0].says


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("kill -SEGV $$", "Helm's library ended by SIGSEGV."),
        ("echo panic >&2; exit 2", "Helm's library ended with exit code 2.\npanic"),
        ("echo hello", "Helm's library said what is no answer: hello"),
    ],
)
def test_a_library_that_fails_is_a_finding_and_takes_nobody_along(tmp_path, monkeypatch, does, says):
    need_helms_library()
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\n{does}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))

    found = results_of(tmp_path / "1", {**CHART, "chart/templates/x.yaml": text_of(deployment())})["helm template"]

    assert (found.state, found.problems[0].says) == (FAILED, says)


def need_helms_library():
    if importlib.util.find_spec("helm_python") is None or programs.found("helm"):
        pytest.skip("helm-python-sdk is not here, or helm itself is")


def test_terraform_reads_what_it_lays_out(tmp_path):
    if programs.found("terraform") is None:
        pytest.skip("terraform is not installed: https://developer.hashicorp.com/terraform/install")
    right = results_of(tmp_path / "1", {"main.tf": 'resource "a" "b" {\n  name = "x"\n}\n'})["terraform fmt"]
    wrong = results_of(tmp_path / "2", {"main.tf": 'resource "a" "b" {\nname="x"\n}\n'})["terraform fmt"]

    assert (right.state, right.not_checked[0][:20]) == (PASSED, "`terraform validate`")
    assert wrong.state == FAILED


STAND_IN = """\
#!{python}
import json, sys
assert "--skip-download" in sys.argv
found = {{"check_id": "CKV_K8S_8", "check_name": "Liveness", "file_path": "/a.yaml", "file_line_range": [3, 9],
         "resource": "Deployment.serving.x"}}
excused = {{**found, "check_id": "CKV_K8S_40"}}
print(json.dumps([{{"results": {{"failed_checks": [found, excused]}}}}]))
sys.exit(1)
"""


def test_what_checkov_finds_is_told_with_its_place_and_what_stays_with_its_reason(tmp_path, monkeypatch):
    """checkov itself is too large for a test's set-up: a stand-in says what it says."""
    program = tmp_path / "checkov"
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(programs, "found", lambda name: Path(program) if name == "checkov" else None)

    found = results_of(tmp_path / "d", {"a.yaml": text_of(deployment())})["checkov"]

    assert [(one.place, one.says) for one in found.problems] == [
        ("a.yaml:3 Deployment.serving.x", "CKV_K8S_8 Liveness")
    ]
    (excused,) = found.not_checked
    assert excused.startswith("CKV_K8S_40: 1000 is the user of NVIDIA's image")


ODD = (None, "x", 3, ["x"])


def changed(value, new):
    """Yield VALUE with each of its parts replaced by NEW."""
    yield new
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        for inner in changed(value[key], new):
            made = value.copy()
            made[key] = inner
            yield made


def test_no_shape_of_an_object_is_stumbled_over(tmp_path):
    monitor = {"spec": {"selector": {"matchLabels": {"app": "x"}}, "podMetricsEndpoints": [{"port": "m"}]}}
    rule = {"spec": {"groups": [{"rules": [{"record": "a:b", "expr": "up"}]}]}}
    named = {"apiVersion": "monitoring.coreos.com/v1", "metadata": {"name": "x"}}
    right = [deployment(), service(), scaler("up"), rule["spec"]]
    right += [{**named, "kind": "PodMonitor", **monitor}, {**named, "kind": "PrometheusRule", **rule}]
    documents = [made for one in right for new in ODD for made in changed(one, new)]
    (tmp_path / "a.yaml").write_text(text_of(*documents))
    folder = Folder(tmp_path)

    # Those that go by what the schemas hold objects to, which others run.
    checked = {
        one.name: one.run(folder).checked
        for one in validation.catalogue()
        if one.name in {"references", "pod security", "promql-parser"}
    }

    assert min(checked.values()) > 30


def test_bytes_that_are_no_text_are_a_problem(tmp_path):
    found = problems(tmp_path, {"a.yaml": "a: \0\n"}, "yamllint")

    assert found == [("a.yaml", "it is no text: special characters are not allowed")]


def test_a_kind_that_is_no_text_is_a_problem(tmp_path):
    found = problems(tmp_path, {"a.yaml": text_of({**service(), "kind": None})}, "kubernetes-validate")

    assert [says for _, says in found] == ["apiVersion and kind have to be text"]


def test_names_that_look_like_options_and_scripts_of_nobody_are_files(tmp_path):
    script = "#!/bin/sh\necho $1\n"
    found = results_of(tmp_path, {"--norc.sh": script, "x": "#!/\n", "-Dockerfile": "FROM x:1\n", "y": "#!/bin/sh \n"})

    assert [one.place for one in found["shellcheck"].problems] == ["--norc.sh:2"]
    assert found["shellcheck"].checked == 2


def test_a_folder_does_not_say_what_is_not_looked_for_in_it(tmp_path):
    silent = {".shellcheckrc": "disable=all\n", ".hadolint.yaml": "ignored: [DL3006, DL3007]\n"}
    found = results_of(
        tmp_path, {**silent, "x.sh": "#!/bin/sh\necho $1\n", "Dockerfile": "FROM debian:latest\nUSER 1\n"}
    )

    assert [one.place for one in found["shellcheck"].problems] == ["x.sh:2"]
    assert [one.place for one in found["hadolint"].problems] == ["Dockerfile:1"]


TAGS_FOUND = """\
#!{python}
import json, sys
found = [
    {{"check_id": "CKV_K8S_43", "check_name": "Image should use digest", "file_path": "/" + name,
     "file_line_range": [1, 40], "resource": "Deployment.serving.x"}}
    for name in ("nvidia.yaml", "other.yaml", "both.yaml")
]
print(json.dumps({{"results": {{"failed_checks": found}}}}))
sys.exit(1)
"""


def test_a_tag_of_nvidias_image_stays_with_what_to_do_and_one_of_anybody_elses_is_a_problem(tmp_path, monkeypatch):
    program = tmp_path / "checkov"
    program.write_text(TAGS_FOUND.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setattr(programs, "found", lambda name: Path(program) if name == "checkov" else None)
    nvidia, other = "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3", "registry.example.com/trtk-cpu:1"
    images = {"nvidia": [nvidia], "other": [other], "both": [nvidia, other]}
    files = {
        f"{name}.yaml": text_of(
            pod_with(containers=[{"name": f"c{place}", "image": image} for place, image in enumerate(used)])
        )
        for name, used in images.items()
    }

    found = results_of(tmp_path / "d", files)["checkov"]

    assert [one.place.split(":")[0] for one in found.problems] == ["other.yaml", "both.yaml"]
    (excused,) = found.not_checked
    assert "--image nvcr.io/…@sha256:…" in excused


def test_a_folder_cannot_choose_what_checkov_runs(tmp_path, monkeypatch):
    program = tmp_path / "checkov"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    program.chmod(0o755)
    monkeypatch.setattr(programs, "found", lambda name: Path(program) if name == "checkov" else None)
    files = {"a.yaml": text_of(deployment()), ".checkov.yaml": "external-checks-dir: [own]\n"}

    found = results_of(tmp_path / "d", files)["checkov"]

    assert found.state == NOT_CHECKED
    assert ".checkov.yaml" in found.not_checked[0]
    assert not (tmp_path / "ran").exists()


def test_a_list_of_objects_is_its_objects(tmp_path):
    document = {"apiVersion": "v1", "kind": "List", "items": [deployment(), service()]}
    (tmp_path / "a.yaml").write_text(text_of(document))

    assert [one.place for one in Folder(tmp_path).objects] == ["a.yaml Deployment/x", "a.yaml Service/x"]


@pytest.mark.parametrize(
    "text",
    [
        "metadata: &a {name: x, b: *a}\n",
        "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]\n" for i in range(9)),
        "a: " + "[" * 300 + "]" * 300 + "\n",
    ],
    ids=["itself", "aliases of aliases", "deep"],
)
def test_a_document_that_unfolds_without_end_is_refused(text, tmp_path):
    (tmp_path / "x.yaml").write_text(text)

    with pytest.raises(UsageError, match=r"x\.yaml unfolds to more than"):
        validation.examine(tmp_path)


def test_json_that_is_too_deep_is_no_json(tmp_path):
    found = results_of(tmp_path, {"x.json": "[" * 100_000})["json"]

    assert [(one.place, "it is no JSON" in one.says) for one in found.problems] == [("x.json", True)]
