"""`trtk deploy`: what is asked for and cannot be, or means something else, is a sentence before anything is written."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.test_deploy import built, document, measured, run, sizes  # noqa: F401 - fixtures
from toolkit import engine

PROMETHEUS = ("--prometheus", "http://prometheus.monitoring:9090")


@pytest.mark.parametrize(
    ("words", "code", "said", "hint"),
    [
        (["--set", "pull_secret=My_Secret"], 2, "--set pull_secret='My_Secret' is no", "Try --set pull_secret=my-"),
        (["--model-volume", "pvc:Claim"], 2, "--model-volume pvc:'Claim' is no", "Try --model-volume pvc:claim-"),
        (["--model-volume", "pvc:claim/a\nb: c"], 2, "is no folder inside a claim", "pvc:CLAIM/models/demo"),
        (["--gpu-product", "NVIDIA RTX A4500"], 2, "is no label of a node", "NVIDIA-RTX-A4500"),
        (["-o", "/dev/null/x"], 2, "/dev/null is a file", "-o"),
        (["--autoscale", "1..2", *PROMETHEUS, "--rate", 500], 3, "and --autoscale ends at 2", "--autoscale 1.."),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wish_that_cannot_be_gets_a_sentence_and_a_hint_that_works(built, run, tmp_path, words, code, said, hint):  # noqa: F811
    done = run("kubernetes", built(), *words)
    assert said in done.stderr.replace("\n", " ")
    assert hint in done.stderr.replace("\n", " ")
    assert (done.exit_code, list(tmp_path.iterdir())) == (code, [])


def test_dynamo_serves_with_its_own_images_and_says_so(built, run):  # noqa: F811
    folder = built("h100-sxm", "fp8", flow="llmapi")
    done = run("dynamo", folder, "--image", "registry.example/other:1")
    assert "--image names what serves, and NVIDIA Dynamo serves with images of its own release." in done.stderr
    assert done.exit_code == 2
    assert run("dynamo", folder, "-o", "d").exit_code == 0
    assert "ai-dynamo/tensorrtllm-runtime" in Path("d/prepare/loader.yaml").read_text()


def test_servers_that_are_asked_for_and_too_few_say_how_many_the_load_takes(built, run):  # noqa: F811
    needed, _, _ = sizes(run, built(), "--rate", 100, "--isl", 512, "--osl", 256)
    assert needed > 1
    _, reason, _ = sizes(run, built(), "--rate", 100, "--isl", 512, "--osl", 256, "--replicas", 1)
    assert reason.startswith(f"asked for; the load takes {needed}: 100 requests/s at 70%")
    assert sizes(run, built(), "--rate", 100, "--replicas", 1000)[1] == "asked for"


def test_a_million_tokens_cost_the_same_on_one_server_and_on_four(built, run):  # noqa: F811
    one, four = (sizes(run, built(), "--replicas", count)[2]["cost"] for count in (1, 4))
    assert four["per_month"] == pytest.approx(4 * one["per_month"])
    assert four["per_million_output_tokens"] == pytest.approx(one["per_million_output_tokens"])


def test_what_is_printed_of_a_disaggregated_graph_says_whose_cost_it_is(built, run):  # noqa: F811
    folder = built("h100-sxm", "fp8", flow="llmapi")
    done = run("dynamo", folder, "--disaggregated", "--price", "2EUR/h")
    assert "Cost of the decode workers alone: 1,460 EUR a month for 1 GPU" in done.stdout


def test_a_linked_folder_is_written_to_where_the_link_leads(built, run, tmp_path):  # noqa: F811
    (tmp_path / "prod").symlink_to("kept")
    for count in (1, 2):
        assert run("kubernetes", built(), "--replicas", count, "-o", "prod").exit_code == 0
        assert (tmp_path / "prod").is_symlink()
        assert f"replicas: {count}\n" in (tmp_path / "kept/manifests/deployment.yaml").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".kept.lock", "kept", "prod"]


@pytest.mark.parametrize(("target", "is_by_kv_use"), [("kubernetes", True), ("dynamo", False)])
def test_what_is_printed_of_autoscaling_is_what_the_files_scale_by(built, run, target, is_by_kv_use):  # noqa: F811
    folder = built("h100-sxm", "fp8", flow="llmapi")
    assert run(target, folder, "--autoscale", "1..4", *PROMETHEUS, "-o", target).exit_code == 0
    texts = "".join(path.read_text() for path in Path(target).rglob("*.yaml"))
    done = run(target, folder, "--autoscale", "1..4", *PROMETHEUS, "--dry-run")
    assert ("of the KV cache" in done.stdout, "kv_cache_block_type" in texts) == (is_by_kv_use, is_by_kv_use)


def test_a_model_of_a_local_folder_is_called_by_its_name_wherever_it_lay(built, run, tmp_path):  # noqa: F811
    made = []
    for place in ("/home/one/models/mine", "/srv/two/mine", "mine"):
        folder = tmp_path / "engines" / place.strip("/").replace("/", "-") / "same"
        shutil.copytree(built(), folder)
        manifest = json.loads((folder / engine.MANIFEST).read_text())
        manifest["model"] = {"name": place, "path": f"/mnt/{place}", "revision": "local", "shards": []}
        (folder / engine.MANIFEST).write_text(json.dumps(manifest))
        out = tmp_path / f"out-{len(made)}"
        assert run("kubernetes", folder, "-o", out).exit_code == 0
        made.append({str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()})
    assert made[0] == made[1] == made[2]
    assert b'trtk/model: "mine"' in made[0]["manifests/deployment.yaml"]


def test_a_plan_that_somebody_edited_is_a_sentence(built, run, tmp_path):  # noqa: F811
    folder = tmp_path / "engines" / "edited"
    shutil.copytree(built(), folder)
    manifest = json.loads((folder / engine.MANIFEST).read_text())
    manifest["plan"]["conversion"] = 5
    (folder / engine.MANIFEST).write_text(json.dumps(manifest))
    done = run("kubernetes", folder)
    assert (done.exit_code, done.stderr.startswith("Error: The manifest of ")) == (2, True)


def test_a_report_sizes_only_requests_of_the_lengths_that_it_measured(built, run, measured):  # noqa: F811
    path, report = measured("short")
    asked = 10 * report["output_tokens"] // report["requests"]["ok"]
    done = run("kubernetes", built(), "--report", path, "--osl", asked)
    assert done.exit_code == 3
    assert f"--osl asks for {asked}. It says nothing of those." in done.stderr.replace("\n", " ")
    assert run("kubernetes", built(), "--report", path, "--osl", asked // 10).exit_code == 0


@pytest.mark.parametrize(
    "changes",
    [{"request_throughput_rps": 0}, {"requests": {"ok": 0}}, {"mean_in_flight": None}, {"input_tokens": None}],
)
def test_a_report_without_numbers_sizes_nothing(built, run, measured, changes):  # noqa: F811
    path, report = measured("odd")
    report = {**report, "valid": True, "warnings": [], **changes}
    (path / "report.json").write_text(json.dumps({key: value for key, value in report.items() if value is not None}))
    done = run("kubernetes", built(), "--report", path, "--rate", 5)
    assert (done.exit_code, done.stderr.startswith("Error: ")) == (2, True)


def test_the_load_test_of_a_forwarded_port_is_one_servers_share(built, run):  # noqa: F811
    assert run("kubernetes", built(), "--rate", 100, "--replicas", 20, "-o", "many").exit_code == 0
    text = Path("many/README.md").read_text()
    assert "trtk bench --url grpc://127.0.0.1:8001 --model ensemble --rate 5 " in text
    assert "The share of the load that one of the 20 servers takes" in text


def test_charts_with_an_openai_endpoint_say_how_its_keys_are_made(built, run):  # noqa: F811
    words = ("--openai", "--gateway-image", "registry.example/trtk:1", "-o", "chart")
    assert run("helm", built(name="keyed"), *words).exit_code == 0
    assert "create secret generic keyed-api-keys --from-file=api-keys.json" in Path("chart/README.md").read_text()


def test_a_claim_for_one_server_says_what_more_of_them_take(built, run):  # noqa: F811
    assert run("helm", built(), "-o", "one").exit_code == 0
    text = Path("one/README.md").read_text()
    assert "The claims are ReadWriteOnce" in text
    assert "for the PodMonitor; without it set objects.podMonitor=false." in text
    assert run("helm", built(), "--replicas", 2, "-o", "two").exit_code == 0
    assert "ReadWriteOnce" not in Path("two/README.md").read_text()
