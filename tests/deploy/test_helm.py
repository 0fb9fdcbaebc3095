"""The Helm target: rendered by Helm itself, the chart gives the kubernetes target's objects, and what people change."""

import dataclasses
import importlib.util
import json

import pytest
import yaml

from tests.deploy.deployments import spec_of
from toolkit import deploy
from toolkit.deploy import charts
from toolkit.deploy.charts import Slot, Switch
from toolkit.deploy.targets import helm as target
from toolkit.validation import helm_library

if importlib.util.find_spec("helm_python") is None:
    pytest.skip("helm-python-sdk is not here", allow_module_level=True)

#: Flow, tp, nodes, volume and autoscaler.
CASES = (
    ("engine", 1, 1, "pvc", "keda"),
    ("engine", 2, 1, "hostpath", ""),
    ("engine", 2, 1, "oci", "hpa"),
    ("engine", 16, 2, "pvc", "keda"),
    ("engine", 16, 2, "oci", ""),
    ("llmapi", 2, 1, "pvc", "hpa"),
    ("llmapi", 2, 1, "hostpath", "keda"),
    ("openvino", 1, 1, "pvc", ""),
)


SETTINGS = {
    "client_namespace": "gateways",
    "api_keys_secret": "keys",
    "pull_secret": "registry",
    "storage_class": "fast",
    "priority_class": "serving",
    "monitor_labels": "release=prometheus",
}


def written(folder, spec):
    for name, text in deploy.render(spec).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def rendered(folder, *, name="demo-a4500-int4", namespace="serving", **values):
    """Return the objects that `helm template` gives."""
    made = helm_library.asked(folder, name=name, namespace=namespace, values=values)
    assert (made.error, made.warnings) == ("", ())
    return [
        document
        for path, text in sorted(made.files.items())
        if path.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]


def objects_of(spec):
    files = deploy.render(dataclasses.replace(spec, target="kubernetes"))
    return [
        document
        for name, text in sorted(files.items())
        if name.startswith("manifests/")
        for document in yaml.safe_load_all(text)
    ]


def by_name(objects):
    made = {(one["kind"], one["metadata"]["name"]): one for one in objects}
    assert len(made) == len(objects)
    return made


@pytest.mark.parametrize(("flow", "tp", "nodes", "volume", "autoscale"), CASES)
def test_its_own_values_give_the_objects_of_the_kubernetes_target(tmp_path, flow, tp, nodes, volume, autoscale):
    spec = spec_of("helm", flow, tp=tp, nodes=nodes, volume=volume, autoscale=autoscale)

    folder = written(tmp_path, spec)

    assert by_name(rendered(folder)) == by_name(objects_of(spec))


def test_the_openai_endpoint_and_what_only_some_clusters_have_are_in_it_too(tmp_path):
    spec = spec_of("helm", volume="pvc", settings=SETTINGS)
    container = dataclasses.replace(spec.container, openai_port=9000, gateway_image="registry.example.com/trtk:1")
    spec = dataclasses.replace(spec, container=container)

    folder = written(tmp_path, spec)

    made = by_name(rendered(folder))
    assert made == by_name(objects_of(spec))
    assert ("InferencePool", "demo-a4500-int4") in made
    values = yaml.safe_load((folder / "values.yaml").read_text())
    assert values["gatewayImage"] == "registry.example.com/trtk:1"
    assert values["network"] == {"clientNamespace": "gateways", "monitoringNamespace": "monitoring"}
    assert deploy.render(spec) == deploy.render(spec)


def leaves(values, prefix=""):
    for name, value in values.items():
        yield from leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]


def test_every_value_of_the_table_is_one_in_some_deployment():
    """A place that moved in the manifests would silently be no value any more."""
    openai = {"openai_port": 9000, "gateway_image": "registry.example.com/trtk:1"}
    found = set()
    for volume, autoscale in (("pvc", ""), ("hostpath", "keda"), ("oci", "hpa")):
        spec = spec_of("helm", volume=volume, autoscale=autoscale, settings=SETTINGS)
        spec = dataclasses.replace(spec, container=dataclasses.replace(spec.container, **openai))
        found |= set(leaves(yaml.safe_load(deploy.render(spec)["values.yaml"])))

    assert found == {one.value for one in (*target.SLOTS, *target.SWITCHES)}


@pytest.fixture
def chart(tmp_path):
    return written(tmp_path, spec_of("helm", volume="pvc", autoscale="keda"))


def test_values_change_what_they_say_and_nothing_else(chart):
    before = by_name(rendered(chart))

    after = by_name(
        rendered(
            chart,
            image="registry.example.com/triton@sha256:" + "1" * 64,
            resources={"memory": "32Gi"},
            model={"claim": "other"},
            autoscaling={"minReplicas": 2, "maxReplicas": 6, "waiting": "9"},
            startup={"failureThreshold": 90},
        )
    )

    pod = after["Deployment", "demo-a4500-int4"]["spec"]["template"]["spec"]
    container = pod["containers"][0]
    assert container["image"] == "registry.example.com/triton@sha256:" + "1" * 64
    assert container["resources"]["limits"]["memory"] == container["resources"]["requests"]["memory"] == "32Gi"
    assert container["startupProbe"]["failureThreshold"] == 90
    assert pod["initContainers"][0]["image"] == container["image"]
    model = next(volume for volume in pod["volumes"] if volume["name"] == "model")
    assert model["persistentVolumeClaim"] == {"claimName": "other", "readOnly": True}
    scaled = after["ScaledObject", "demo-a4500-int4"]["spec"]
    assert (scaled["minReplicaCount"], scaled["maxReplicaCount"]) == (2, 6)
    assert scaled["triggers"][0]["metadata"]["threshold"] == "9"
    changed = {key for key, one in after.items() if one != before[key]}
    assert changed == {("Deployment", "demo-a4500-int4"), ("ScaledObject", "demo-a4500-int4")}
    assert set(after) == set(before)


def test_what_a_cluster_lacks_can_be_left_out(chart):
    kinds = {kind for kind, _ in by_name(rendered(chart))}

    less = {kind for kind, _ in by_name(rendered(chart, objects={"podMonitor": False, "networkPolicy": False}))}

    assert kinds - less == {"PodMonitor", "NetworkPolicy"}


def test_two_releases_of_one_chart_share_no_object_and_no_selector(chart):
    one, two = (by_name(rendered(chart, name=name)) for name in ("a", "b"))

    assert not set(one) & set(two)
    texts = json.dumps(list(one.values()))
    assert "demo-a4500-int4" not in texts.replace("serving/demo-a4500-int4", "")
    pods = [made["Deployment", name]["spec"]["selector"]["matchLabels"] for name, made in (("a", one), ("b", two))]
    assert pods[0] != pods[1]
    services = [made["Service", name]["spec"]["selector"] for name, made in (("a", one), ("b", two))]
    assert services == pods


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"replica": 3}, "replica"),
        ({"autoscaling": {"minReplicas": 0}}, "minReplicas"),
        ({"autoscaling": {"maxReplicas": "many"}}, "maxReplicas"),
        ({"resources": {"memory": "lots"}}, "memory"),
        ({"image": ""}, "image"),
        ({"network": {"monitoringNamespace": "No Label"}}, "monitoringNamespace"),
        ({"objects": {"podMonitor": "yes"}}, "podMonitor"),
    ],
)
def test_a_wrong_value_is_refused_by_name(chart, values, named):
    assert named in helm_library.asked(chart, name="a", namespace="b", values=values).error


def test_a_release_whose_name_leaves_no_room_for_suffixes_is_refused(chart):
    assert "longer than 40 letters" in helm_library.asked(chart, name="a" * 41, namespace="b").error


def test_text_that_looks_like_helms_own_stays_as_it_is(tmp_path):
    """Alerts of Prometheus and Python's f-strings have double braces of their own."""
    text = (
        "kind: ConfigMap\nmetadata: {name: trtk-release-name-files}\ndata:\n"
        '  rules: "{{ $labels.server }} is down"\n  script: |\n    print(f"{{{x}}}")\n'
        "---\n# a reason\nkind: PodMonitor\nmetadata: {name: trtk-release-name}\nspec: {port: 1000000}\n"
    )
    slot = Slot(value="port", help="A port.", path="spec/port", schema={"type": "integer"})
    switch = Switch(value="objects.monitor", kind="PodMonitor", help="It monitors.")

    made = charts.chart({"a.yaml": text}, (slot,), (switch,), known={})

    (tmp_path / "templates").mkdir()
    (tmp_path / "templates" / "a.yaml").write_text(made.templates["a.yaml"])
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: a\nversion: 0.1.0\n")
    (tmp_path / "values.yaml").write_text(json.dumps(made.values))
    assert made.values == {"objects": {"monitor": True}, "port": 1000000}
    assert rendered(tmp_path, name="r") == list(yaml.safe_load_all(text.replace("trtk-release-name", "r")))
    assert "# a reason" in made.templates["a.yaml"]
