"""Where bytes are defined, they are those of ModelOpt's own functions."""

import warnings

import pytest
import torch

from tests.quant.groups import quantized, random_inputs, random_weight, random_weights
from toolkit import quant
from toolkit.quant import float4, float8, float8_blocks, int4, int8, nvfp4
from toolkit.quant.blocks import row_amax

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def modelopt():
    """ModelOpt's export functions."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns about what this machine lacks, CUDA above all
        from modelopt.torch.export import quant_utils
    return quant_utils


@pytest.fixture(scope="module")
def nvfp4_tensor():
    """ModelOpt's NVFP4."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from modelopt.torch.quantization.qtensor import NVFP4QTensor
    return NVFP4QTensor


@pytest.fixture
def weight():
    """A float32 weight of bfloat16 values with a dead row and a dead group."""
    made = random_weight(96, 256).float()
    made[5] = 0
    made[7, :128] = 0
    return made


def same_bytes(ours, theirs):
    return torch.equal(ours.contiguous().view(torch.uint8), theirs.contiguous().view(torch.uint8))


def test_int4_scales_and_bytes(modelopt, weight):
    integers, scales = int4.rounded_to_nearest(weight, 128)

    assert torch.equal(scales, modelopt.get_scaling_factor_from_weight(weight, 128))
    assert same_bytes(int4.packed(integers), modelopt.to_quantized_weight(weight, scales, "int4_awq", block_size=128))
    assert same_bytes(int4.packed(integers), modelopt.to_quantized_weight(weight, scales, "w4a8_awq", block_size=128))


def test_int8_scales_and_bytes(modelopt, weight):
    integers, scales = int8.stored_weight(weight, torch.ones(256))

    assert torch.equal(scales, modelopt.get_scaling_factor_from_weight(weight, 0))
    assert same_bytes(integers, modelopt.to_quantized_weight(weight, scales, "int8_sq"))


def test_fp8_bytes_per_tensor_row_and_block(modelopt, weight):
    tensor_scale = float8.scale_of(weight.abs().max())
    row_scales = float8.scale_of(row_amax(weight))
    block_scales = float8_blocks.block_scales(weight[:, :256])
    whole_blocks = torch.cat([weight, weight])[:128]

    assert same_bytes(
        float8.stored_weight(weight, tensor_scale), modelopt.to_quantized_weight(weight, tensor_scale, "fp8")
    )
    assert same_bytes(
        float8.stored_weight(weight, row_scales), modelopt.to_quantized_weight(weight, row_scales, "fp8_pc_pt")
    )
    block_scales = float8_blocks.block_scales(whole_blocks)
    theirs = modelopt.to_quantized_weight(whole_blocks, block_scales.unsqueeze(0), "fp8_pb_wo", block_size=128)
    assert same_bytes(float8_blocks.stored(whole_blocks, block_scales), theirs)


def test_nvfp4_scales_and_bytes(nvfp4_tensor, weight):
    scale = nvfp4.global_scale(weight.abs().max())
    scales = nvfp4.block_scales(weight, scale)
    codes = float4.codes(nvfp4.rounded(weight, scales, scale))

    theirs, their_scales, their_scale = nvfp4_tensor.quantize(weight.clone(), 16)

    assert torch.equal(scale, their_scale)
    assert same_bytes(scales, their_scales)
    assert same_bytes(float4.packed(codes), theirs._quantized_data)


def test_nvfp4_means_what_modelopt_reads(nvfp4_tensor):
    linear = quantized("nvfp4", random_weights(), random_inputs())["attention.q"]
    packed = nvfp4_tensor(torch.Size([256, 256]), torch.float32, float4.packed(linear.weight))

    theirs = packed.dequantize(
        scale=linear.weight_scale, double_scale=linear.weight_scale_2, block_sizes={-1: 16}, dtype=torch.float32
    )

    assert torch.equal(quant.format_of("NVFP4").dequantize(linear), theirs)


def test_a_smoothed_weight_means_what_modelopt_reads(modelopt):
    linear = quantized("int8_sq", random_weights(), random_inputs())["attention.q"]

    theirs = modelopt.from_quantized_weight(linear.weight, linear.weight_scale, "int8_sq", torch.float32)

    assert torch.equal(quant.format_of(linear.algo).dequantize(linear), theirs)


@pytest.mark.parametrize("recipe", ["int4", "int4_gptq", "w4a8_awq"])
def test_searched_integers_are_packed_as_modelopt_packs_their_values(modelopt, recipe):
    linear = quantized(recipe, random_weights(), random_inputs())["attention.q"]
    values = int4.dequantized(linear.weight.float(), linear.weight_scale)

    theirs = modelopt.to_quantized_weight(values, linear.weight_scale, "int4_awq", block_size=128)

    assert same_bytes(int4.packed(linear.weight), theirs)
