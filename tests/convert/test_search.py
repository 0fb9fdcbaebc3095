"""A search aims, measures and aims again; what it finds is written as a mixed checkpoint."""

import json

import pytest

from tests.conftest import save_llama
from tests.convert.checkpoints import CALIBRATION
from toolkit import convert, evaluate, models, plan, quant
from toolkit.convert.search import Trial, next_limit
from toolkit.errors import GateError, PlanInfeasible
from toolkit.evaluate import TextSpec
from toolkit.specs import AutoSpec, ModelSource

TEXT = TextSpec(rows=4, length=128)


def trial(limit, estimated, measured, bits=5.0):
    return Trial(limit=limit, mean_bits=bits, estimated_kl=estimated, measured_kl=measured)


@pytest.mark.parametrize(
    ("trials", "expected"),
    [
        ([], 0.1),
        ([trial(0.1, 0.1, 0.09)], None),
        # twice as bad as estimated: half the bound is estimated to keep it
        ([trial(0.1, 0.1, 0.2)], 0.05 * 0.95),
        # half as bad: bits can be saved
        ([trial(0.1, 0.1, 0.05)], 0.2 * 0.95),
        # the second trial is not loosened again
        ([trial(0.1, 0.1, 0.2), trial(0.05, 0.05, 0.05, bits=6.0)], None),
        # a loosened trial that missed gives way to the one before
        ([trial(0.1, 0.1, 0.05, bits=6.0), trial(0.19, 0.19, 0.11)], None),
        # nothing changes any more
        ([trial(0.1, 0.1, 0.2), trial(0.05, 0.1, 0.2)], None),
    ],
)
def test_the_next_bound_learns_from_what_was_measured(trials, expected):
    assert next_limit(trials, 0.1) == (expected if expected is None else pytest.approx(expected))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(source, spec) of a four-layer model with one layer that rounding hurts more than others."""
    import torch

    folder = tmp_path_factory.mktemp("tiny")
    model = save_llama(folder, num_hidden_layers=4)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layers.2.mlp" in name and "proj" in name:  # a heavy tail: most weights fall below a step of 4 bits
                parameter.copy_(parameter * (1 + 30 * (torch.rand_like(parameter) > 0.99)))
    model.half().save_pretrained(folder)
    source = ModelSource(name="tiny", path=str(folder), revision="local")
    return source, models.read(source)


def plan_of(spec, *names, **bounds):
    auto = AutoSpec(candidates=tuple(quant.get(name) for name in names or ("int4_rtn", "int8", "fp16")), **bounds)
    asked = plan.AskedCheckpoint(exclude=("*.layers.0.*",))
    return plan.conversion(spec, plan.mixed.recipe_of(auto), asked=asked, calibration=CALIBRATION, auto=auto)


def report_of(folder):
    return json.loads((folder / "auto.json").read_text(encoding="utf-8"))


def test_a_search_spends_its_bits_on_the_layer_that_rounding_hurts(tiny, tmp_path):
    source, spec = tiny

    convert.run(plan_of(spec, target_bits=6.0), source, tmp_path / "made")

    report = report_of(tmp_path / "made")
    assert report["assignment"][0] == {}  # excluded: 16 bits, and not counted
    assert {report["assignment"][2][group] for group in ("mlp.fc", "mlp.proj")} <= {"int8", "fp16"}
    assert 5.0 < report["mean_bits"] <= 6.0
    assert sum(report["groups"].values()) == 12
    config = json.loads((tmp_path / "made" / "config.json").read_text(encoding="utf-8"))
    assert config["quantization"]["quant_algo"] == "MIXED_PRECISION"
    found = evaluate.run(tmp_path / "made", source, TEXT)
    named = {"int4_rtn": "W4A16_AWQ", "int8": "W8A16", "fp16": None}
    chosen = [{group: named[name] for group, name in layer.items()} for layer in report["assignment"]]
    assert [layer.algos for layer in found.layers] == [dict.fromkeys(found.layers[0].algos), *chosen[1:]]
    assert report["estimated_kl"] == pytest.approx(found.kl, rel=0.5)


def test_a_bound_is_measured_and_aimed_at_again(tiny, tmp_path):
    source, spec = tiny
    seen = []

    def measure(folder):
        seen.append(3 * evaluate.run(folder, source, TEXT).kl)  # as if the estimate were far too kind
        return seen[-1]

    convert.run(plan_of(spec, target_bits=4.0), source, tmp_path / "four bits")
    bound = report_of(tmp_path / "four bits")["estimated_kl"]

    convert.run(plan_of(spec, max_kl=bound), source, tmp_path / "made", measure=measure)

    report = report_of(tmp_path / "made")
    assert len(report["trials"]) == len(seen) > 1
    assert report["measured_kl"] <= bound
    assert report["trials"][-1]["mean_bits"] > report["trials"][0]["mean_bits"]
    assert not (tmp_path / "made" / "search").exists()


def test_a_bound_out_of_reach_is_a_missed_gate_with_both_numbers(tiny, tmp_path):
    source, spec = tiny

    with pytest.raises(GateError, match=r"int4_rtn, int8 was found .* at 0\.001 .*: 8\.00 bits came to 0\.5000"):
        convert.run(plan_of(spec, "int4_rtn", "int8", max_kl=0.001), source, tmp_path / "made", measure=lambda _: 0.5)


def test_an_interrupted_search_goes_on_and_finds_the_same(tiny, tmp_path):
    source, spec = tiny
    asked = plan_of(spec, "int4", "int8", target_bits=5.0)
    convert.run(asked, source, tmp_path / "whole")

    def stopped(step, done, _):
        if step.startswith("Quantize") and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert.run(asked, source, tmp_path / "made", progress=stopped)
    steps = []
    convert.run(asked, source, tmp_path / "made", progress=lambda step, *_: steps.append(step))

    assert {step.split()[0] for step in steps} == {"Quantize"}  # nothing was made or weighed again
    for path in sorted((tmp_path / "whole").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "made" / path.relative_to(tmp_path / "whole")).read_bytes()


@pytest.mark.parametrize(
    ("names", "bounds", "message"),
    [
        (("int4", "int4_rtn"), {"target_bits": 4.5}, "int4, int4_rtn all have 4 bits"),
        (("int4", "int8"), {"target_bits": 3.0}, "--target-bits 3 is below the 4 bits of int4"),
    ],
)
def test_what_cannot_be_searched_is_refused(tiny, names, bounds, message):
    with pytest.raises(PlanInfeasible, match=message):
        plan_of(tiny[1], *names, **bounds)
