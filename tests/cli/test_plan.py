"""`trtk plan`: the document that design.md names, offline, in 80 columns; nonsense gets a sentence."""

import json

import pytest
from click.testing import CliRunner

from toolkit import calibration, convert, models, plan, quant
from toolkit.cli import main
from toolkit.cli.plan_views import BAR_WIDTH, widths
from toolkit.specs import Calibration, CalibrationPoint, CalibrationSpec

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
}
LOAD = ["--isl", "1024", "--osl", "256", "--concurrency", "16"]
A4500 = ["--gpu", "a4500", "--quant", "int4"]


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "llama-8b.json"
    path.write_text(json.dumps(LLAMA_8B))
    return path


def trtk(*arguments, code=0):
    done = CliRunner().invoke(main, ["plan", *map(str, arguments)], env={"COLUMNS": "80"})
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    return done


def document(*arguments, code=0):
    return json.loads(trtk(*arguments, "--json", code=code).stdout)


def test_a_plan_has_the_keys_that_others_read(config):
    found = document(config, *A4500, *LOAD, "--slo", "ttft=500ms", "--slo", "itl=50ms")

    assert found["fits"] is True
    memory = found["memory_bytes"]
    assert set(memory) == {"weights", "kv_cache", "activations", "runtime", "free", "total"}
    assert sum(memory.values()) == 2 * memory["total"]
    assert found["kv"] == {
        "bytes_per_token": 131072,
        "blocks": found["kv"]["max_tokens"] // 32,
        "tokens_per_block": 32,
        "max_tokens": memory["kv_cache"] // (32 * 131072) * 32,
    }
    assert found["limits"] == {
        "max_batch_size": 16,
        "max_concurrency": 16,
        "max_num_tokens": 2048,
        "max_seq_len": 1280,
    }
    for name in ("ttft_ms", "tpot_ms", "output_tps"):
        each = found["performance"][name]
        assert 0 < each["low"] < each["mid"] < each["high"]
    assert found["performance"]["bound_by"]
    assert found["cost"]["per_hour"] == 0.35
    assert found["cost"]["currency"] == "EUR"
    assert "max_seq_len 1280: the longest prompt and answer of the workload together" in found["reasons"]
    assert isinstance(found["warnings"], list)


def test_a_folder_a_file_and_the_demo_are_planned_without_a_network_or_weights(config, tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "empty"))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text(config.read_text())

    assert document(folder, *A4500)["kv"] == document(config, *A4500)["kv"]
    assert document("demo", *A4500)["memory_bytes"]["weights"] < 200e6
    assert not (tmp_path / "empty").exists()
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_what_is_printed_fits_80_columns_and_shows_the_bar(config):
    text = trtk(config, *A4500, *LOAD, "--explain").stdout

    bar = next(line.strip() for line in text.splitlines() if line.strip().startswith("WWW"))
    assert len(bar) == BAR_WIDTH
    assert set(bar) == set("WarK·")
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "bound by max_batch_size" in " ".join(text.split())
    assert "Latency cliff beyond 16 requests in flight" in " ".join(text.split())
    assert "int4 → fp16" in text


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1, 1], [10**9, 1, 1, 1, 0], [0, 0, 0, 0, 1], [3, 5, 8, 13, 21]])
def test_the_parts_of_the_bar_fill_it_and_none_is_lost(sizes):
    found = widths(sizes)

    assert sum(found) == BAR_WIDTH
    assert [bool(width) for width in found] == [bool(size) for size in sizes]


NONSENSE = {
    "isl beyond the context": (["--isl", "200000", *A4500], 3, "beyond the model's 131072 positions"),
    "tp that does not divide": ([*A4500, "--tp", "3"], 3, "--tp 3 does not divide the model's 32 attention heads."),
    "an slo under the physical limit": ([*A4500, *LOAD, "--slo", "ttft=1ms"], 3, "not 1 with one request alone"),
    "an slo of no card": (["--slo", "ttft=0.001ms"], 3, "None of these cards carries the load."),
    "a negative price": ([*A4500, "--price", "-1EUR/h"], 2, "A price of -1EUR/h is below zero."),
    "a rate of no site": ([*A4500, "--rate", "1e300"], 2, "1e+300 requests a second are more than a plan is made for."),
    "users without end": (
        [*A4500, "--users", "99999999999", "--requests-per-hour", "1e300"],
        2,
        "are more than a plan is made for.",
    ),
    "a price of nothing": ([*A4500, "--price", "0EUR/h"], 2, "is none"),
    "an unknown currency": ([*A4500, "--currency", "XYZ"], 2, "There is no exchange rate for XYZ; there are EUR, USD."),
    "zero in flight": ([*A4500, "--concurrency", "0"], 2, "--concurrency 0 is not above zero."),
    "a rate that is no number": ([*A4500, "--rate", "nan"], 2, "--rate nan is not above zero."),
    "two loads": ([*A4500, "--rate", "1", "--users", "5"], 2, "--rate and --users both say how much comes."),
    "an unknown card": (["--gpu", "a4501"], 2, "There is no GPU named 'a4501'."),
    "a format that the card cannot run": (["--gpu", "a4500", "--quant", "fp8"], 3, "fp8 needs sm_89 or newer"),
    "a cache type of another flow": (
        ["--gpu", "l4", "--quant", "fp8", "--flow", "llmapi", "--kv-cache", "int8"],
        3,
        "--kv-cache int8 is of the engine flow",
    ),
    "no tokens": ([*A4500, "--osl", "0"], 2, "--osl 0 is no number of tokens."),
    "a headroom beyond the card": ([*A4500, "--headroom", "180"], 2, "--headroom 180 is no share of a card."),
    "a duty of more than always": ([*A4500, "--duty", "2"], 2, "--duty 2 is no share of the time."),
    "a region without offers": (["--region", "mars"], 2, "No offer is in a region 'mars'; there are "),
    "a region without offers for the card": ([*A4500, "--region", "mars"], 2, "No offer is in a region 'mars'"),
    "a rate below all reason": ([*A4500, "--sweep", "rate=1e-300..1"], 2, "leaves what a server is asked."),
    "a rate beyond all reason": ([*A4500, "--sweep", "rate=1..1e300"], 2, "leaves what a server is asked."),
    "a sweep backwards": ([*A4500, "--sweep", "concurrency=9..3"], 2, "--sweep concurrency=9..3 is no range."),
    "a distribution of nobody": ([*A4500, "--isl", "weird:5,4"], 2, "'weird:5,4' is no length in tokens."),
    "drafts that are always wrong": ([*A4500, "--speculation", "4:0"], 2, "--speculation 4:0 is no number of drafts"),
    "a sweep of what was said": (
        [*A4500, "--isl", "64", "--sweep", "isl=1..9"],
        2,
        "--sweep isl and --isl both say it.",
    ),
    "a sweep beyond the context": ([*A4500, "--sweep", "isl=1..200000"], 3, "is beyond the model's 131072 positions"),
    "more in flight than fit": ([*A4500, *LOAD[:4], "--concurrency", "5000"], 3, "5000 requests of 1280 tokens do not"),
    "a batch beyond the card": (
        [*A4500, "--max-batch-size", "1000000"],
        3,
        "The buffers of --max-batch-size 1000000 leave 0.00 GiB",
    ),
    "a comparison of nothing": (["--compare", ","], 2, "',' names no card."),
    "a comparison of no name": (["--gpu", "a4500", "--compare", ""], 2, "'' names no card."),
    "an slo of microseconds": ([*A4500, "--slo", "ttft=0.01ms"], 3, "not 0.01 with one request alone"),
    "weights that do not fit": (["--gpu", "t4", "--quant", "nvfp4"], 3, "nvfp4 needs sm_100 or newer"),
}


@pytest.mark.parametrize(("arguments", "code", "sentence"), NONSENSE.values(), ids=NONSENSE.keys())
def test_nonsense_gets_a_sentence(config, arguments, code, sentence):
    done = trtk(config, *arguments, code=code)

    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert sentence in errors[0]


def test_what_does_not_fit_says_what_would(config):
    done = trtk(config, "--gpu", "rtx-2000-ada", "--quant", "fp16", *LOAD[:4], code=3)
    found = document(config, "--gpu", "rtx-2000-ada", "--quant", "fp16", *LOAD[:4], code=3)

    assert "Hint: Try --quant fp8." in done.stderr
    assert found["fits"] is False
    assert found["reasons"][0].startswith("The weights take 14.96 GiB")


def test_what_fits_may_still_miss_what_was_asked(config):
    done = trtk(config, *A4500, *LOAD, "--budget", "10EUR", code=3)
    found = document(config, *A4500, *LOAD, "--budget", "10EUR", code=3)
    crowded = document(config, *A4500, *LOAD[:4], "--concurrency", "5000", code=3)

    assert "fits, and misses what was asked" in done.stdout
    assert "Error: 255 EUR a month is above the budget." in done.stderr
    assert (found["fits"], found["is_load_carried"]) == (True, False)
    assert (crowded["fits"], crowded["is_load_carried"]) == (False, False)


def test_many_shares_over_pcie_are_warned_of(config):
    wide = document(config, "--gpu", "l40s", "--quant", "fp8", "--tp", "4", *LOAD)
    nvlink = document(config, "--gpu", "h100", "--quant", "fp8", "--tp", "4", *LOAD)

    assert any("replicas and --pp come before --tp" in warning for warning in wide["warnings"])
    assert not any("NVLink" in warning for warning in nvlink["warnings"])


def test_cards_are_recommended_where_none_is_named(config):
    found = document(config, *LOAD[:4], "--users", "500", "--slo", "ttft=500ms", "--slo", "itl=50ms")

    costs = [option["cost"]["per_month"] for option in found["options"]]
    assert costs == sorted(costs)
    assert len(found["pareto_front"]) > 1
    assert {option["gpu"] for option in found["pareto_front"]} <= {option["gpu"] for option in found["options"]}
    assert {each["gpu"] for each in found["rejected"]} >= {"cpu", "t4"}
    text = trtk(config, *LOAD[:4], "--users", "500", "--slo", "ttft=500ms", "--slo", "itl=50ms").stdout
    assert "Pareto front: cost against time per token" in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_cpu_is_recommended_where_it_is_enough():
    found = document("demo", "--isl", "64", "--osl", "32", "--rate", "0.05")
    text = trtk("demo", "--isl", "64", "--osl", "32", "--rate", "0.05").stdout

    assert found["options"][0]["gpu"] == "cpu"
    assert "This machine's CPU is enough" in text


def test_lengths_are_distributions_too(config):
    load = document(config, *A4500, "--isl", "lognormal:512,0.6", "--osl", "uniform:100,300")["workload"]

    assert load["isl"] == pytest.approx(512 * 2.718281828 ** (0.6**2 / 2), rel=0.05)
    assert load["isl_cv"] == pytest.approx((2.718281828 ** (0.6**2) - 1) ** 0.5, rel=0.1)
    assert load["osl"] == pytest.approx(200, rel=0.03)
    assert load["osl_max"] == 300
    assert load["isl_max"] > 3 * load["isl"]


def test_objectives_have_names(config):
    named = document(config, "--gpu", "a4500,l4", "--slo", "chat", *LOAD[:4])

    assert named["slo"] == {"ttft_ms": 500.0, "tpot_ms": 30.0, "e2e_ms": None}


def test_speculation_is_planned_and_refused_where_there_is_none(config):
    alone = [*A4500, "--isl", "512", "--osl", "256", "--concurrency", "1"]
    plain, drafts, dear = (
        document(config, *alone, *more)["performance"]["tpot_ms"]["mid"]
        for more in ((), ("--speculation", "4:0.7"), ("--speculation", "4:0.7:0.2"))
    )

    # 1 + 0.7 + 0.49 + 0.343 + 0.2401 tokens a step, of which the drafts cost a little.
    assert 2.0 < plain / drafts < 2.78
    assert drafts < dear < plain
    done = trtk("demo", "--gpu", "cpu", "--quant", "int4", "--speculation", "4:0.7", code=3)
    assert "The CPU engine does not speculate." in done.stderr


def test_several_cards_are_ranked(config):
    found = document(config, "--gpu", "a4500,l4", *LOAD[:4])

    assert {option["gpu"] for option in found["options"]} == {"a4500", "l4"}


def test_a_rate_is_planned_alike_on_a_named_card_and_among_others(config):
    named = document(config, *A4500, "--rate", "10")
    best = document(config, *A4500, "--rate", "10", "--recommend")["options"][0]

    assert named["replicas"] == best["replicas"]
    assert named["performance"] == best["performance"]
    assert named["cost"] == best["cost"]


def test_cards_are_compared_by_their_best(config):
    found = document(config, "--compare", "a4500,l4,4090,a10g,h100", *LOAD[:4])

    assert sorted(option["gpu"] for option in found["options"]) == ["a10g", "a4500", "h100-sxm", "l4", "rtx-4090"]


def test_the_quality_that_was_measured_stands_beside_the_price(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    manifest = {
        "evaluation": {"ppl": 30.0, "ppl_base": 27.0, "kl": 0.123, "top1": 0.8, "tokens": 100},
        "model": {"name": str(config)},
        "plan": {"conversion": {"recipe": {"name": "int4"}}},
    }
    (tmp_path / "engines/one").mkdir(parents=True)
    (tmp_path / "engines/one/manifest.json").write_text(json.dumps(manifest))
    (tmp_path / "engines/two").mkdir()
    (tmp_path / "engines/two/manifest.json").write_text("half a fi")

    found = document(config, "--recommend", "--gpu", "a4500", *LOAD[:4])

    by_name = {option["quant"]: option["quality"] for option in found["options"]}
    assert by_name.pop("int4") == {"ppl": 30.0, "ppl_base": 27.0, "kl": 0.123, "top1": 0.8}
    assert set(by_name.values()) == {None}
    assert "0.123" in trtk(config, "--recommend", "--gpu", "a4500", *LOAD[:4]).stdout


def test_without_a_format_all_of_them_are_ranked_on_the_card(config):
    found = document(config, "--gpu", "a4500", *LOAD)
    text = trtk(config, "--gpu", "a4500", *LOAD).stdout

    assert found["quant"] == found["formats"][0]["quant"]
    assert {option["quant"] for option in found["formats"]} == {"fp16", "int8", "int8_sq", "int4"}
    assert {each["quant"] for each in found["rejected_formats"]} == {"fp8", "nvfp4"}
    assert "Formats on this card" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    assert "formats" not in document(config, *A4500, *LOAD)


def test_a_sweep_names_the_cliff(config):
    found = document(config, *A4500, *LOAD[:4], "--sweep", "concurrency=1..256")

    cliff = found["cliff"]["concurrency"]
    assert found["cliff"]["cause"] == "kv_cache"
    assert [point["is_beyond_cliff"] for point in found["points"]] == [
        point["concurrency"] > cliff for point in found["points"]
    ]
    assert "── cliff" in trtk(config, *A4500, *LOAD[:4], "--sweep", "concurrency=1..256").stdout


@pytest.mark.parametrize("axis", ["rate=0.5..20", "isl=128..8192", "osl=16..4096"])
def test_rates_and_lengths_are_swept_too(config, axis):
    name = axis.partition("=")[0]
    found = document(config, *A4500, "--sweep", axis)
    text = trtk(config, *A4500, "--sweep", axis).stdout

    assert [point[name] for point in found["points"]] == sorted(point[name] for point in found["points"])
    assert found["cliff"].keys() == {name, "cause", "sentence"}
    assert f"Sweep of {name}" in text
    assert found["cliff"]["sentence"] in " ".join(text.split())
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    "arguments",
    [
        [*A4500, *LOAD],
        ["--users", "100"],
        [*A4500, "--sweep", "concurrency=1..99"],
        [*A4500, "--sweep", "rate=1..9"],
    ],
    ids=["one", "cards", "sweep", "rates"],
)
def test_a_page_is_self_contained(config, tmp_path, arguments):
    trtk(config, *arguments, "--html", tmp_path / "plan.html")

    page = (tmp_path / "plan.html").read_text()
    assert page.count("<svg") >= 1
    assert "nan" not in page.replace("nvfp4", "")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert "latency cliff" in page or "Pareto" in page


def test_prices_come_from_a_file_and_in_the_asked_currency(config, tmp_path):
    own = tmp_path / "own.toml"
    own.write_text(
        'provider = "rack"\ncurrency = "EUR"\n[rates]\nUSD = 2.0\n[[offers]]\ngpu = "a4500"\nper_gpu_hour = 0.10'
    )

    found = document(config, *A4500, *LOAD, "--prices", own, "--currency", "usd", "--duty", "0.5")["cost"]

    assert (found["currency"], found["per_hour"], found["duty"]) == ("USD", 0.2, 0.5)
    assert found["per_million_at_duty"]["mid"] == pytest.approx(2 * found["per_million_output_tokens"]["mid"])
    assert found["offer"]["provider"] == "rack"


def test_a_boot_log_is_compared_with_the_plan(config, tmp_path):
    log = tmp_path / "boot.log"
    log.write_text(
        "[TensorRT-LLM][INFO] Loaded engine size: 5440 MiB\n"
        "[TensorRT-LLM][INFO] [MemUsageChange] Allocated 6.00 GiB for max tokens in paged KV cache (49152).\n"
    )

    found = document(config, *A4500, *LOAD, "--verify", log)
    text = trtk(config, *A4500, *LOAD, "--verify", log).stdout

    rows = {row["what"]: row["is_off"] for row in found["rows"]}
    assert rows == {"weights": False, "kv_cache": True, "kv_tokens": True, "bytes_per_token": False}
    assert "kv cache was off by -49%" in text


def test_a_log_without_a_word_of_tensorrt_llm_is_refused(config, tmp_path):
    log = tmp_path / "boot.log"
    log.write_text("nothing")

    assert "no line of TensorRT-LLM's" in trtk(config, *A4500, "--verify", log, code=2).stderr


def test_a_trace_is_the_workload(config, tmp_path):
    trace = tmp_path / "trace.jsonl"
    rows = [
        {"timestamp": 0, "input_length": 100, "output_length": 10},
        {"timestamp": 5, "input_length": 300, "output_length": 30},
    ]
    trace.write_text("\n".join(json.dumps(row) for row in rows))

    found = document(config, *A4500, "--trace", trace)

    assert (found["workload"]["isl"], found["workload"]["osl_max"], found["limits"]["max_seq_len"]) == (200, 30, 330)


def test_what_was_calibrated_is_used_from_then_on(config):
    point = CalibrationPoint(concurrency=1, isl=128, osl=64, output_tps=10.0, ttft_ms=100.0, tpot_ms=100.0)
    calibration.write(
        Calibration(
            gpu="a4500",
            engine="trtllm",
            recipe="int4",
            model="another",
            compute_tflops=20.0,
            bandwidth_gb_per_s=64.0,
            step_ms=1.0,
            log_sd=0.05,
            points=(point,),
            date="2026-11-21",
        )
    )

    slow, other = document(config, *A4500, *LOAD), document(config, "--gpu", "l4", "--quant", "int4", *LOAD)

    assert slow["performance"]["provenance"] == "calibrated"
    assert slow["performance"]["tpot_ms"]["mid"] > 4e9 / 64e9 * 1000
    assert other["performance"]["provenance"] != "calibrated"


def test_weights_that_are_quantized_already_are_read_off_their_headers(llama, tmp_path):
    source = models.locate(str(llama[0]))
    asked = plan.AskedCheckpoint(layout="hf")
    calibrated = CalibrationSpec(source="self", samples=1, length=8)
    made = plan.conversion(models.read(source), quant.get("fp8"), asked=asked, calibration=calibrated)
    convert.run(made, source, tmp_path / "fp8")

    lengths = ["--isl", "64", "--osl", "32"]
    found = document(tmp_path / "fp8", "--gpu", "l4", "--quant", "keep", *lengths)
    refused = trtk(llama[0], "--gpu", "l4", "--quant", "keep", *lengths, code=2)

    assert found["memory_bytes"]["weights"] == sum(plan.tensors.checkpoint_bytes(made))
    assert "The model is not quantized, so --quant keep has nothing to keep." in refused.stderr
