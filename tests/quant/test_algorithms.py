"""What every recipe promises, whatever it searches."""

import pytest
import torch

from tests.quant.groups import output_error, quantized, random_inputs, random_weights
from toolkit import quant
from toolkit.errors import PlanInfeasible
from toolkit.plan.storage import dtype

RECIPES = [recipe.name for recipe in quant.catalogue()]
#: Relative output error of weights and inputs together; float formats err by 2 ** -(mantissa bits + 1) at most.
BOUNDS = {
    "fp16": 1e-3,
    "bf16": 1e-3,
    "int8": 0.02,
    "int8_sq": 0.03,
    "fp8": 0.05,
    "fp8_rowwise": 0.05,
    "fp8_block": 0.05,
    "int4": 0.12,
    "int4_gptq": 0.12,
    "int4_rtn": 0.16,
    "w4a8_awq": 0.13,
    "nvfp4": 0.16,
}
EXPERTS = {f"mlp.experts.{e}.{name}": 64 for e in range(2) for name in ("fc", "gate")}


def tensors_of(linear):
    fields = ("weight", "weight_scale", "weight_scale_2", "activation_scale", "prequant")
    return {field: tensor for field in fields if (tensor := getattr(linear, field)) is not None}


@pytest.mark.parametrize("recipe", RECIPES)
def test_outputs_stay_within_the_formats_bound(recipe):
    weights, inputs = random_weights(), random_inputs()

    assert output_error(quantized(recipe, weights, inputs), weights, inputs) < BOUNDS[recipe]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_input_gives_the_same_bytes_and_is_left_alone(recipe):
    weights, inputs = random_weights(), random_inputs()
    kept = {part: weight.clone() for part, weight in weights.items()}

    first, second = (quantized(recipe, weights, inputs) for _ in range(2))

    for part in weights:
        assert torch.equal(weights[part], kept[part])
        ours, theirs = tensors_of(first[part]), tensors_of(second[part])
        assert ours.keys() == theirs.keys()
        assert all(
            torch.equal(ours[name].view(torch.uint8), theirs[name].view(torch.uint8))
            for name in ours
            if ours[name].dim()
        )


@pytest.mark.parametrize("recipe", RECIPES)
def test_float32_weights_are_left_alone_too(recipe):
    weights = {part: weight.float() for part, weight in random_weights().items()}
    kept = {part: weight.clone() for part, weight in weights.items()}

    quantized(recipe, weights, random_inputs())

    assert all(torch.equal(weights[part], kept[part]) for part in weights)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("sizes", [None, EXPERTS], ids=["qkv", "experts"])
def test_parts_share_what_an_engine_fuses(recipe, sizes):
    weights = random_weights(sizes)
    linears = quantized(recipe, weights, random_inputs())
    first = next(iter(linears.values()))

    for part, linear in linears.items():
        sibling = linears.get(part.replace("gate", "fc"), first)
        assert (linear.weight_scale_2 is None) or torch.equal(linear.weight_scale_2, sibling.weight_scale_2)
        for field in ("prequant", "activation_scale"):
            ours, theirs = getattr(linear, field), getattr(first, field)
            assert (ours is None and theirs is None) or torch.equal(ours, theirs)
        if recipe == "fp8":
            assert torch.equal(linear.weight_scale, sibling.weight_scale)
    if sizes and recipe in {"fp8", "nvfp4", "w4a8_awq"}:
        scale = "weight_scale" if recipe == "fp8" else "weight_scale_2"
        assert len({float(getattr(linear, scale)) for linear in linears.values()}) == 2  # one for each expert


@pytest.mark.parametrize("recipe", RECIPES)
def test_dead_rows_groups_and_inputs_stay_zero(recipe):
    weights, inputs = random_weights(), random_inputs()
    weights["attention.q"][3] = 0
    weights["attention.q"][:, :128] = 0
    inputs[:, 200:] = 0

    linears = quantized(recipe, weights, inputs)

    for linear in linears.values():
        for tensor in tensors_of(linear).values():
            assert torch.isfinite(tensor.float()).all()
    dequantized = quant.format_of(linears["attention.q"].algo).dequantize(linears["attention.q"])
    assert not dequantized[3].any()
    if recipe != "nvfp4":  # its dead blocks may help to make up for others' rounding
        assert not dequantized[:, :128].any()
    assert output_error(linears, weights, inputs) < 2 * BOUNDS[recipe]


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_input_that_is_always_zero_breaks_nothing(recipe):
    for linear in quantized(recipe, random_weights(), torch.zeros(8, 256)).values():
        assert all(torch.isfinite(tensor.float()).all() for tensor in tensors_of(linear).values())


@pytest.mark.parametrize("recipe", ["int4", "int4_gptq", "w4a8_awq", "nvfp4"])
def test_integers_and_scales_are_laid_out_row_by_row(recipe):
    linear = quantized(recipe, random_weights(), random_inputs())["attention.q"]

    assert linear.weight.is_contiguous()
    assert linear.weight_scale.is_contiguous()


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_names_its_format_and_a_quantized_one_its_source(recipe):
    found = quant.get(recipe)

    assert quant.format_of(found.quant_algo).algo == found.quant_algo
    assert found.papers or found.quant_algo in {None, "W8A16"} or recipe == "int4_rtn"
    assert set(found.layouts) == ({"hf"} if recipe == "fp8_block" else {"trtllm", "hf"})


def test_bf16_implies_bfloat16_and_refuses_another_dtype():
    assert dtype(quant.get("bf16"), None) == "bfloat16"
    assert dtype(quant.get("fp16"), None) == "float16"
    assert dtype(quant.get("int4"), "bfloat16") == "bfloat16"
    with pytest.raises(PlanInfeasible, match="bf16 means bfloat16, so --dtype float16 cannot be meant"):
        dtype(quant.get("bf16"), "float16")
