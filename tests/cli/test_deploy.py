"""`trtk deploy`: how many servers, with what reason; wrong wishes; folders that are there whole or not at all."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.bench.test_comparing import result
from tests.plan.test_speed import LLAMA
from toolkit import bench, deploy, engine, gpus, models, plan, quant, releases
from toolkit.bench.runs import Run
from toolkit.cli import first_start, main
from toolkit.engine import bundle, bundle_archive
from toolkit.plan import recommend, serving
from toolkit.specs import (
    MANIFEST_SCHEMA,
    CalibrationSpec,
    EngineManifest,
    FileRecord,
    Limits,
    LoadProfile,
    Sharding,
    to_json,
)

KINDS = {"engine": "trtllm", "llmapi": "llmapi", "openvino": "openvino"}
IMAGE = "registry.example/trtk-cpu@sha256:" + "a" * 64


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Makes folders as `trtk build` leaves them, of a model of 8 billion weights and without the weights."""
    places = tmp_path_factory.mktemp("engines")
    made = {}

    def make(gpu="a4500", recipe="int4", *, flow="auto", tp=1, name=""):
        key = name or f"llama-{gpu}-{recipe}-{flow}-tp{tp}"
        if key not in made:
            made[key] = _built(places / key, gpu, recipe, flow=flow, tp=tp)
        return made[key]

    return make


def _built(folder, gpu, recipe, *, flow, tp):
    model = models.family_of("LlamaForCausalLM").describe(LLAMA)
    found, sharding = quant.get(recipe), Sharding(tp=tp)
    target = plan.Target(gpu=gpus.get(gpu), flow=flow, **releases.facts_of(releases.get("auto")))
    target = plan.resolve(target, found, recipes=quant.catalogue(), model=model)
    asked = plan.AskedCheckpoint(sharding=sharding, layout="hf" if target.flow == "llmapi" else "trtllm")
    text = CalibrationSpec(source="self", samples=16, length=512)
    converted = plan.conversion(model, found, asked=asked, calibration=text)
    planned = dataclasses.replace(
        plan.make(converted, target, plan.Asked(sharding=sharding), recipes=quant.catalogue()), builder="defer"
    )
    is_cpu = planned.flow == "openvino"
    weights = "engine" if is_cpu else "checkpoint"
    files = (FileRecord(path=f"{weights}/weights.bin", size_bytes=planned.weights_bytes * tp, sha256="0" * 64),)
    manifest = EngineManifest(
        schema_version=MANIFEST_SCHEMA, kind=KINDS[planned.flow], name=folder.name, plan=to_json(planned),
        model={"name": "meta-llama/Llama-3.1-8B-Instruct", "revision": "0e9e39f249a16976918f6564b8830bc894c89659"},
        files=files, durations_s={}, tool_versions={"trtk": "0.1.0"}, is_deferred=planned.flow == "engine",
        build_id="b" * 32,
    )  # fmt: skip
    folder.mkdir()
    (folder / engine.MANIFEST).write_text(json.dumps(to_json(manifest)))
    if not is_cpu:
        bundle.write_entry(planned, folder, first_start.commands_by_sm(planned))
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs `trtk deploy` in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def call(*words):
        return CliRunner().invoke(main, ["deploy", *(str(word) for word in words)])

    return call


def document(done):
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["deployment"]


def sizes(run, *words):
    found = document(run("kubernetes", *words, "--dry-run", "--json"))
    return found["replicas"]["value"], found["replicas"]["reason"], found


# How many.


def test_replicas_are_what_the_planner_says_that_the_rate_takes(built, run):
    count, reason, found = sizes(run, built(), "--rate", 20, "--isl", 512, "--osl", 256, "--slo", "ttft=1s")
    each = found["promise"]["concurrency"]["value"]
    busy_s = (found["promise"]["ttft_ms"] + 255 * found["promise"]["tpot_ms"]) / 1000
    # Little's law, and no more than a share of what a server carries.
    assert count == -(-20 // (each / busy_s * recommend.UTILISATION))
    assert reason.startswith("20 requests/s at 70% of the ")
    assert "says the planner" in reason
    assert found["promise"]["slos"] == ["ttft=1s"]


def test_more_load_takes_more_servers_and_more_money(built, run):
    few, _, cheap = sizes(run, built(), "--concurrency", 8)
    many, reason, dear = sizes(run, built(), "--concurrency", 800)
    assert few == 1 < many
    assert reason.startswith("800 requests in flight, ")
    assert dear["cost"]["per_month"] == pytest.approx(many * cheap["cost"]["per_month"])
    assert cheap["cost"]["per_month"] == pytest.approx(730 * cheap["cost"]["per_hour"])


def test_the_price_is_printed_and_one_that_nobody_knows_is_asked_for(built, run):
    done = run("kubernetes", built(tp=2), "--replicas", 3, "--price", "0.50EUR/h")
    assert "Cost: 2,190 EUR a month for 6 GPUs, 2,847 to 3,285 with what is around them." in done.stdout
    assert "2190 EUR a month" in Path("deploy/llama-a4500-int4-auto-tp2/README.md").read_text()
    no_price = run("kubernetes", built(), "--region", "us-east-1", "--dry-run").stdout
    assert "Cost: nobody here knows a price of NVIDIA RTX A4500; give one with --price 0.35EUR/h." in no_price


@pytest.fixture
def measured(tmp_path):
    """Writes the report of a load test: 400 requests one after another, some 90 ms each."""

    def write(name, **changes):
        made = result(seed=1, **changes)
        profile = LoadProfile(url="grpc://x", requests=400, concurrency=1, osl=32, slos=("ttft=500ms@p95",))
        run = Run(profile=profile, records=made.records, started_at="", duration_s=made.duration_s, mean_in_flight=0.9)
        bench.write(bench.summarise(run, {}), tmp_path / name, has_page=False)
        report = json.loads((tmp_path / name / "report.json").read_text())
        (tmp_path / name / "report.json").write_text(json.dumps({**report, "valid": True, "warnings": []}))
        return tmp_path / name, report

    return write


def test_a_report_says_what_a_server_carries(built, run, measured):
    path, report = measured("alone")
    rate = 10 * report["request_throughput_rps"]
    count, reason, found = sizes(run, built(), "--report", path, "--rate", rate)
    assert count == 15  # 10 / 0.7
    assert reason.endswith("says alone (measured)")
    promise = found["promise"]
    assert promise["output_tps"] == report["output_token_throughput_tps"]
    assert (promise["ttft_ms"], promise["slos"]) == (report["ttft_ms"]["p50"], ["ttft=500ms@p95"])


def test_a_report_of_another_card_or_format_sizes_nothing(built, run, measured):
    path, report = measured("elsewhere")

    def sized_by(**served):
        (path / "report.json").write_text(json.dumps({**report, "valid": True, "warnings": [], "environment": served}))
        return run("kubernetes", built(), "--report", path, "--dry-run")

    assert (
        sized_by(served_gpu="a4500", served_model="meta-llama/Llama-3.1-8B-Instruct", served_quant="int4").exit_code
        == 0
    )
    done = sized_by(served_gpu="cpu", served_model="meta-llama/Llama-3.1-8B-Instruct", served_quant="int8")
    assert (done.exit_code, "was measured on quant int8, gpu cpu" in " ".join(done.stderr.split())) == (3, True)


def test_a_report_says_how_full_the_cache_was(built, run, measured):
    path, report = measured("full")
    changed = {**report, "valid": True, "server_metrics": {"peak": {"kv_fraction": 0.86}}}
    (path / "report.json").write_text(json.dumps(changed))
    scale = ("--autoscale", "1..4", "--prometheus", "http://p", "--dry-run", "--json")
    found = document(run("kubernetes", built(), "--report", path, *scale))["autoscale"]["kv_use"]
    assert found == {"value": 0.91, "reason": "the load takes 86% of the KV cache"}


def test_a_report_that_missed_its_objective_sizes_nothing(built, run, measured):
    path, _ = measured("slow", scale=100)
    done = run("kubernetes", built(), "--report", path)
    assert (done.exit_code, "missed the objective: ttft of 500 ms" in done.stderr) == (3, True)
    fast, _ = measured("fast")
    done = run("kubernetes", built(), "--report", fast, "--slo", "ttft=0.01ms")
    assert (done.exit_code, "missed the objective: ttft of 0.01 ms" in done.stderr) == (3, True)


def test_thresholds_follow_from_the_objective_and_the_plan(built, run):
    scale = ("--autoscale", "1..4", "--prometheus", "http://prometheus.monitoring:9090")
    load = ("--isl", 512, "--osl", 256)
    waits = {}
    for slo in ("600ms", "6s"):
        found = document(run("kubernetes", built(), *scale, *load, "--slo", f"ttft={slo}", "--dry-run", "--json"))
        waits[slo] = found["autoscale"]["waiting"]["value"]
        assert "requests/s end on a server" in found["autoscale"]["waiting"]["reason"]
    assert 1 <= waits["600ms"] < waits["6s"]
    found = document(run("kubernetes", built(), *scale, *load, "--dry-run", "--json"))
    each = found["promise"]["concurrency"]["value"]
    assert found["autoscale"]["waiting"]["value"] == max(1, round(each / 10))
    assert found["autoscale"]["cooldown_s"]["value"] >= found["budgets"]["startup_s"]["value"]
    assert 0.8 <= found["autoscale"]["kv_use"]["value"] <= 0.95
    assert found["replicas"]["value"] == 1


def test_more_servers_are_asked_for_before_a_queue_refuses_requests(built, run):
    scale = ("--autoscale", "1..4", "--prometheus", "http://prometheus.monitoring:9090", "--slo", "ttft=60s")
    found = document(run("kubernetes", built(), *scale, "--isl", 64, "--osl", 32, "--dry-run", "--json"))
    queue = serving.queue_size(Limits(**found["model"]["limits"]))
    assert found["autoscale"]["waiting"] == {
        "value": queue / 2,
        "reason": f"half of the {queue} that may wait before requests are refused",
    }


def test_the_load_test_keeps_in_flight_what_was_asked_for_and_no_more_than_the_servers_carry(built, run):
    def in_flight(*words):
        run("kubernetes", built(), *words, "--isl", 512, "--osl", 256, "-o", "load")
        return int(re.search(r"trtk bench .* --concurrency (\d+) ", Path("load/README.md").read_text())[1])

    _, _, found = sizes(run, built(), "--isl", 512, "--osl", 256)
    carried = found["promise"]["concurrency"]["value"]
    assert in_flight("--concurrency", 8) == 8
    # Of the two servers a forwarded port reaches one.
    assert in_flight("--concurrency", 10_000, "--replicas", 2) == carried
    assert in_flight() == carried


@pytest.mark.parametrize("gpu", ["a4500", "h100-sxm", "cpu"])
def test_budgets_hold_what_a_server_takes(built, run, gpu):
    recipe = "int8" if gpu == "cpu" else "int4"
    image = ("--image", IMAGE) if gpu == "cpu" else ()
    _, _, found = sizes(run, built(gpu, recipe), "--replicas", 1, *image)
    budgets, model = found["budgets"], found["model"]
    assert budgets["startup_s"]["value"] >= model["loaded_bytes"] / 100e6
    assert budgets["memory_bytes"]["value"] >= model["loaded_bytes"] + budgets["shm_bytes"]["value"]
    assert (budgets["compile_s"] is not None) == (model["flow"] == "engine")
    assert all(one["reason"] for one in budgets.values() if one)
    # Nothing of this machine or its user.
    assert (found["container"]["uid"], found["container"]["gid"]) == (1000, 1000)
    assert not any(str(Path.cwd()) in word for word in found["container"]["arguments"])


# The folder.


def texts_in(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("target", sorted(deploy.catalogue()))
def test_every_target_has_a_readme_and_is_written_alike_twice(built, run, tmp_path, target):
    flow = "llmapi" if target == "dynamo" else "auto"
    words = (target, built("h100-sxm", "fp8", flow=flow), "--rate", 4, "--replicas", 1)
    for name in ("a", "b"):
        done = run(*words, "-o", name)
        assert done.exit_code == 0, done.stderr
    texts = [texts_in(tmp_path / name) for name in ("a", "b")]
    assert texts[0] == texts[1]
    readme = texts[0]["README.md"].decode()
    for title in ("## Apply", "## Watch", "## Test", "## Remove", "trtk bench --url "):
        assert title in readme
    assert json.loads(texts[0][deploy.RECORD])["target"] == target


def test_what_is_there_is_replaced_whole_and_what_is_not_ours_is_left(built, run, tmp_path):
    assert "Wrote " in run("kubernetes", built(), "-o", "out").stdout
    assert "Nothing changed in out" in run("kubernetes", built(), "-o", "out").stdout
    scaled = ("--autoscale", "1..2", "--prometheus", "http://prometheus:9090")
    assert "Wrote " in run("kubernetes", built(), *scaled, "-o", "out").stdout
    assert (tmp_path / "out/manifests/scaledobject.yaml").exists()
    assert "Wrote " in run("kubernetes", built(), "-o", "out").stdout
    assert not (tmp_path / "out/manifests/scaledobject.yaml").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter.txt").write_text("dear")
    done = run("kubernetes", built(), "-o", "mine")
    assert (done.exit_code, "was not made by `trtk deploy`" in done.stderr) == (2, True)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_what_a_user_keeps_in_the_folder_stays_and_what_is_no_longer_made_goes(built, run, tmp_path):
    """Terraform's state is the only thing that knows which servers there are."""
    assert run("openstack", built(), "-o", "out").exit_code == 0
    state = tmp_path / "out" / "terraform.tfstate"
    state.write_text("{}")
    (tmp_path / "out/.terraform/providers").mkdir(parents=True)
    (tmp_path / "out/.terraform/providers/linked").symlink_to("/nowhere")
    assert "Nothing changed in out" in run("openstack", built(), "-o", "out").stdout

    assert "Wrote " in run("openstack", built(), "--replicas", 2, "-o", "out").stdout
    assert state.read_text() == "{}"
    assert (tmp_path / "out/.terraform/providers/linked").is_symlink()
    assert "default = 2" in (tmp_path / "out/variables.tf").read_text()
    assert (tmp_path / "out/scripts/setup.sh").stat().st_mode & 0o111

    assert "Wrote " in run("slurm", built(), "--name", "llama", "-o", "out").stdout
    left = {path.name for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert left == {"README.md", "deploy.json", "serve.sbatch", "import-image.sh", "probe.py", "terraform.tfstate"}


def test_a_file_that_a_user_changed_is_not_overwritten(built, run, tmp_path):
    assert run("helm", built(), "-o", "out").exit_code == 0
    values = tmp_path / "out" / "values.yaml"
    values.write_text(values.read_text().replace("replicas: 1", "replicas: 7"))

    done = run("helm", built(), "--replicas", 3, "-o", "out")

    assert done.exit_code == 2
    assert "out holds values.yaml, which `trtk deploy` did not write as it is now." in done.stderr
    assert "replicas: 7" in values.read_text()


def test_a_dry_run_writes_nothing(built, run, tmp_path):
    done = run("kubernetes", built(), "--dry-run")
    assert "manifests/deployment.yaml" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_gives_what_its_folder_gives(built, run, tmp_path):
    folder = built(name="llama-archived")
    (folder / "checkpoint").mkdir(exist_ok=True)
    (folder / "checkpoint/weights.bin").write_bytes(b"w" * 1000)
    manifest = json.loads((folder / engine.MANIFEST).read_text())
    names = [path for path in folder.rglob("*") if path.is_file() and path.name != engine.MANIFEST]
    manifest["files"] = records(folder, names)
    (folder / engine.MANIFEST).write_text(json.dumps(manifest))
    made = bundle_archive.pack(folder, tmp_path / "x.tar.zst")
    assert run("kubernetes", "x.tar.zst", "--name", "same", "-o", "a").exit_code == 0
    assert run("kubernetes", folder, "--name", "same", "-o", "b").exit_code == 0
    a, b = ((tmp_path / name / "manifests/deployment.yaml").read_text() for name in ("a", "b"))
    assert a == b
    assert json.loads((tmp_path / "a" / deploy.RECORD).read_text())["model"]["folder"] == made.name


def records(folder, paths):
    from toolkit.files import sha256_file

    return [
        {"path": str(path.relative_to(folder)), "size_bytes": path.stat().st_size, "sha256": sha256_file(path)}
        for path in paths
    ]


# Wrong wishes.


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--gpus-per-node", 1], 3, "One server takes 2 GPUs (tp 2, pp 1); a node has 1."),
        (["--gpus-per-node", 1, "--multi-node"], 3, "count on nodes of 8 GPUs; these have 1"),
        (["--gpu", "t4"], 3, "tp2 runs on sm_80, "),
        (["--gpu", "cpu"], 3, "CPU (OpenVINO) is no GPU."),
        (["--gpu", "a45000"], 2, "There is no GPU named 'a45000'."),
        (["--autoscale", "1..4"], 2, "--autoscale has no metrics to go by: nobody said where Prometheus answers."),
        (["--autoscale", "4..1", "--prometheus", "http://p"], 2, "--autoscale 4..1 is no range of servers"),
        (["--autoscale", "0..1", "--prometheus", "http://p"], 2, "--autoscale 0..1 is no range of servers"),
        (["--autoscale", "1..2", "--prometheus", "p:9090"], 2, "'p:9090' is no address"),
        (["--autoscale", "1..2", "--prometheus", "http://me:pw@p"], 2, "more than an address"),
        (["--autoscale", "1..2", "--prometheus", "http://p", "--replicas", 2], 2, "both say how many"),
        (["--prometheus", "http://p"], 2, "--prometheus belongs to --autoscale."),
        (["--autoscaler", "hpa"], 2, "--autoscaler belongs to --autoscale."),
        (["--namespace", "My_Space"], 2, "--namespace 'My_Space' is no DNS label"),
        (["--namespace", "a" * 64], 2, "is no DNS label"),
        (["--name", "Demo"], 2, "--name 'Demo' is no DNS label"),
        (["--model-volume", "nfs:x"], 2, "--model-volume nfs:x names no volume."),
        (["--model-volume", "oci:models/demo:latest"], 2, "has no digest"),
        (["--model-volume", "hostpath:srv"], 2, "is no absolute path"),
        (["--model-volume", "hostpath:/"], 2, "is all of a machine"),
        (["--model-volume", "pvc:Claim"], 2, "is no DNS label"),
        (["--model-volume", "pvc:claim/../x"], 2, "is no folder inside a claim"),
        (["--set", "surge"], 2, "--set surge has no value."),
        (["--set", "surges=1"], 2, "There is no setting of kubernetes named 'surges'."),
        (["--values", "none.yaml"], 2, "none.yaml cannot be read"),
        (["--image", "a b"], 2, "--image 'a b' is no image."),
        (["--openai"], 2, "has no OpenAI endpoint"),
        (["--gateway-image", "x"], 2, "--gateway-image belongs to --openai."),
        (["--isl", 9000, "--osl", 9000], 3, "do not fit the engine"),
        (["--slo", "ttft=1ms", "--isl", 4000], 3, "does not keep the objectives: TTFT is "),
        (["--rate", 1000000], 3, " servers."),
        (["--rate", 1, "--concurrency", 1], 2, "both say how much comes"),
        (["--disaggregated"], 3, "cannot separate prefill and decode"),
        (["--replicas", 0], 2, "0 is not in the range"),
        (["--report", "nowhere"], 2, "nowhere"),
        (["--check", "x"], 2, "--check looks at a folder that was written."),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_wrong_wish_gets_a_sentence(built, run, tmp_path, words, code, said):
    done = run("kubernetes", built(tp=2), *words)
    assert said in done.stderr.replace("\n", " ")
    assert done.exit_code == code
    assert list(tmp_path.iterdir()) == []


def test_a_target_lists_its_settings(run):
    assert json.loads(run("slurm", "--settings", "--json").stdout).keys() == deploy.pick("slurm").settings.keys()
    assert "client_namespace" in run("kubernetes", "--settings").stdout


@pytest.mark.parametrize("words", ["", "kubernetes", "kubernetes nowhere", "kubernets .", "kubernetes ."])
def test_nothing_to_deploy_is_a_wrong_command(run, words):
    done = run(*words.split())
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert "Hint: " in done.stderr


def test_values_say_what_only_this_target_has(built, run, tmp_path):
    (tmp_path / "site.yaml").write_text("surge: 1\npriority_class: gpu\nread_only_root: false\n")
    done = run("kubernetes", built(), "--values", "site.yaml", "--set", "priority_class=gold", "-o", "out")
    assert done.exit_code == 0, done.stderr
    made = yaml.safe_load((tmp_path / "out/manifests/deployment.yaml").read_text())["spec"]
    assert made["strategy"]["rollingUpdate"]["maxSurge"] == 1
    assert made["template"]["spec"]["priorityClassName"] == "gold"
    (server,) = made["template"]["spec"]["containers"]
    assert server["securityContext"]["readOnlyRootFilesystem"] is False
    (tmp_path / "bad.yaml").write_text("surge: [1]\n")
    assert run("kubernetes", built(), "--values", "bad.yaml").exit_code == 2


def test_a_preset_is_what_it_stands_for(built, run):
    from toolkit.bench import slo

    _, _, found = sizes(run, built(), "--slo", "chat", "--isl", 512)
    assert found["promise"]["slos"] == list(slo.expanded(["chat"]))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"commands": {"sm86": []}}'])
def test_a_damaged_bundle_is_a_sentence(built, run, text):
    folder = built(name=f"damaged-{len(text)}")
    (folder / "bundle.json").write_text(text)
    done = run("kubernetes", folder, "--gpu", "a6000")
    assert (done.exit_code, done.stderr.startswith("Error: ")) == (2, True)
    (folder / engine.MANIFEST).write_text("{")
    done = run("kubernetes", folder)
    assert (done.exit_code, "manifest" in done.stderr) == (2, True)


def test_the_cpu_image_is_its_own_gateway(built, run):
    """`trtk serve --openai` refuses to listen beyond loopback without keys, which no container could do."""
    _, _, found = sizes(run, built("cpu", "int8"), "--image", IMAGE, "--openai")
    own = found["container"]
    assert (own["gateway_image"], own["openai_port"]) == (IMAGE, 9000)
    assert "--openai" not in own["arguments"]
