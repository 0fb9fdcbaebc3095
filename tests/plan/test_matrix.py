"""Every GPU, quantization, flow and release: a plan as the support matrix has it, or a reason and a way out."""

import dataclasses
import itertools
import re

import pytest

from tests.quant.test_matrix import ENGINE, LLMAPI, SMS, rows_of
from toolkit import gpus, plan, quant, releases
from toolkit.errors import PlanInfeasible
from toolkit.specs import CalibrationSpec, ModelSpec

#: Fits every card, and its shapes suit every format.
MODEL = ModelSpec(
    family="llama",
    architecture="LlamaForCausalLM",
    vocab_size=32000,
    hidden_size=1024,
    num_layers=4,
    num_heads=16,
    num_kv_heads=8,
    head_dim=64,
    intermediate_size=2048,
    activation="silu",
    norm_eps=1e-5,
    rope_theta=10000.0,
    max_position_embeddings=2048,
)
FLOWS = ("auto", "engine", "llmapi", "openvino")
RECIPES = [recipe.name for recipe in quant.catalogue()]
#: One release of each line of TensorRT-LLM, and one that is too old for trtk to compile in.
LINES = ("26.07", "25.12", "25.10", "25.08", "25.06", "24.12")
TABLES = {"engine": ENGINE, "llmapi": LLMAPI}
CELLS = {
    flow: {name: dict(zip(SMS, row, strict=True)) for name, row in rows_of(table).items()}
    for flow, table in TABLES.items()
}
ON_THE_CPU = {"NONE", "W8A16", "W4A16", "W4A16_AWQ"}


def expected(gpu, recipe, flow, release):
    """The flow that the published tables give, None where they give none."""
    algo = recipe.quant_algo or "NONE"
    if gpu.is_cpu:
        return "openvino" if flow in {"auto", "openvino"} and algo in ON_THE_CPU else None
    version = tuple(int(part) for part in release.tensorrt_llm.split(".")[:2])
    there = {"engine": (0, 20) <= version <= (1, 2), "llmapi": version >= (1, 0)}
    tried = [each for each in ("engine", "llmapi") if there[each] and flow in {"auto", each}]
    ways = ((each, cell) for cell in "Y?" for each in tried if CELLS[each][algo][gpu.sm] == cell)
    return next(ways, (None,))[0]


def target_of(gpu, flow, release):
    return plan.Target(gpu=gpu, flow=flow, **releases.facts_of(release))


def planned(gpu, recipe, flow, release):
    target = plan.resolve(target_of(gpu, flow, release), recipe, recipes=quant.catalogue(), model=MODEL)
    asked = plan.AskedCheckpoint(layout=plan.layout_of(target.flow), kv_cache="none")
    text = CalibrationSpec(source="self", samples=4, length=32)
    return plan.make(plan.conversion(MODEL, recipe, asked=asked, calibration=text), target, plan.Asked())


def ways_out(hint, gpu, recipe, flow, release):
    """What the command line is with the hint's options in it, once for each alternative."""
    sentence = hint.removeprefix("Try ")
    for alternative in sentence.split(" or --"):
        words = dict(re.findall(r"(?:--)?\b(quant|gpu|flow|release) ([\w.-]+?)(?=[.,]?(?: |$))", alternative))
        yield (
            gpus.get(words.get("gpu", gpu.name)),
            quant.get(words.get("quant", recipe.name)),
            words.get("flow", flow),
            releases.get(words["release"]) if "release" in words else release,
        )


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_gpu_and_release_takes_the_flow_of_the_matrix_or_is_told_another_that_works(name, flow):
    recipe = quant.get(name)
    refused = {}
    for gpu, release in itertools.product(gpus.catalogue(), releases.catalogue()):
        wanted = expected(gpu, recipe, flow, release)
        try:
            found = plan.resolve(target_of(gpu, flow, release), recipe, recipes=quant.catalogue()).flow
        except PlanInfeasible as error:
            assert str(error)
            found, refused[gpu.sm, release.name] = None, (gpu, release, error.hint)
        assert found == wanted, f"{name} on {gpu.name} (sm_{gpu.sm}), --flow {flow}, {release.name}"
    for gpu, release, hint in refused.values():
        assert "--" in hint
        for way in ways_out(hint, gpu, recipe, flow, release):
            assert way != (gpu, recipe, flow, release), hint
            assert planned(*way).build_flags or way[0].is_cpu, hint


@pytest.mark.parametrize("tag", LINES)
@pytest.mark.parametrize("name", RECIPES)
def test_a_plan_of_every_cell_says_only_what_its_release_accepts(name, tag):
    recipe, release = quant.get(name), releases.get(tag)
    tool, api = releases.build_tool_of(release), releases.llm_api_of(release)
    cards = {gpu.sm: gpu for gpu in gpus.catalogue()}.values()
    for gpu, flow in itertools.product(cards, FLOWS):
        wanted = expected(gpu, recipe, flow, release)
        if wanted is None:
            continue
        made = planned(gpu, recipe, flow, release)
        names = {flag.name for flag in made.build_flags}
        assert (made.flow, made.toolchain) == (wanted, {"engine": "trtllm"}.get(wanted, wanted))
        accepted = {"engine": tool and tool.names(), "llmapi": api and api.keys, "openvino": ()}[wanted]
        assert names <= set(accepted)
        assert all(flag.reason for flag in made.build_flags)
        assert bool(names) == (wanted != "openvino")
        for flag in made.build_flags if wanted == "engine" else ():
            known = tool.flags[flag.name]
            assert not known.choices or flag.value in known.choices, flag
            assert gpu.sm not in known.refused_sms or flag.value == "disable", flag


def test_auto_takes_engines_while_the_release_has_them_and_the_llm_api_after():
    h100, a4500, b200 = (gpus.get(name) for name in ("h100-sxm", "a4500", "b200"))
    newest = releases.default()
    without_engine = dataclasses.replace(newest, name="26.10", tensorrt_llm="1.3.0", flows=("llmapi",))
    facts = releases.facts_of(newest) | {"release": without_engine, "tool": None}

    def flow_of(gpu, recipe, **changed):
        target = plan.Target(gpu=gpu, **(releases.facts_of(newest) | changed))
        return plan.resolve(target, quant.get(recipe), recipes=quant.catalogue()).flow_choice

    assert flow_of(a4500, "int4").value == "engine"
    assert flow_of(h100, "fp8_block").value == "llmapi"
    assert flow_of(h100, "fp8_block").reason == (
        "the LLM API of TensorRT-LLM 1.2.1 loads it as it is; fp8_block is not known to run on sm_90 as an engine"
    )
    assert flow_of(a4500, "int4", **facts).reason == (
        "the LLM API of TensorRT-LLM 1.3.0 loads it as it is; the release has no engine flow"
    )
    with pytest.raises(PlanInfeasible, match=r"int4 runs on sm_80, sm_86, sm_89, sm_90 in any flow of release 26\.07"):
        flow_of(b200, "int4")
