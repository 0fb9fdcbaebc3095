"""What each storage format means, held against its own words: tables, loops and numbers typed out here."""

import pytest
import torch

from tests.quant.groups import random_inputs, random_weight
from toolkit import quant
from toolkit.quant import float4, float8, float8_blocks, int4
from toolkit.weights import Linear

#: Every E2M1 number by its code.
E2M1 = [0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]


def e4m3_numbers() -> list[float]:
    """Every finite E4M3 number from its fields: 4 exponent bits with bias 7, 3 mantissa bits, no infinity."""
    positive = [m / 8 * 2.0**-6 for m in range(8)]
    positive += [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8) if (e, m) != (15, 7)]
    return sorted({-number for number in positive} | set(positive))


def nearest(value: float, numbers: list[float]) -> float:
    return min(numbers, key=lambda number: abs(number - value))


def test_the_nearest_e2m1_number_is_found_and_ties_go_to_the_even_code():
    values = torch.linspace(-7, 7, 2801)
    ties = {0.25: 0, 0.75: 1, 1.25: 1, 1.75: 2, 2.5: 2, 3.5: 4, 5.0: 4}

    found = float4.nearest_(values.clone())

    for value, number in zip(values.tolist(), found.tolist(), strict=True):
        if round(abs(value), 3) not in ties:
            assert number == nearest(value, E2M1), value
    signed = torch.tensor([*ties, *(-tie for tie in ties)])
    assert float4.nearest_(signed).tolist() == [*ties.values(), *(-number for number in ties.values())]


def test_codes_are_sign_and_index_and_come_back():
    assert float4.values(torch.arange(16, dtype=torch.uint8)).tolist() == E2M1
    assert float4.codes(torch.tensor(E2M1)).tolist() == list(range(16))


def test_nvfp4_packs_even_columns_low_and_int4_packs_even_rows_low():
    codes = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 15]], dtype=torch.uint8)
    integers = torch.tensor([[1, -8, 7], [-1, 2, -3]], dtype=torch.int8)

    assert float4.packed(codes).tolist() == [[0x21, 0x43], [0x65, 0xF7]]
    assert int4.packed(integers).view(torch.uint8).tolist() == [[0xF1, 0x28, 0xD7]]
    assert torch.equal(float4.unpacked(float4.packed(codes)), codes)
    assert torch.equal(int4.unpacked(int4.packed(integers)), integers)


def test_rows_or_columns_that_share_no_byte_are_counted():
    with pytest.raises(AssertionError, match="two rows share a byte, and there are 3"):
        int4.packed(torch.zeros(3, 4, dtype=torch.int8))
    with pytest.raises(AssertionError, match="two columns share a byte, and there are 5"):
        float4.packed(torch.zeros(4, 5, dtype=torch.uint8))


def test_packing_many_rows_is_packing_each_pair():
    integers = torch.randint(-8, 8, (1030, 512), dtype=torch.int8)

    low, high = integers[0::2].int() & 15, integers[1::2].int() & 15

    assert torch.equal(int4.packed(integers).view(torch.uint8).int(), low + 16 * high)


def test_an_e4m3_weight_is_the_nearest_of_the_formats_numbers():
    weight, numbers = random_weight(4, 32), e4m3_numbers()
    scale = float8.scale_of(weight.abs().max())

    stored = float8.stored_weight(weight, scale).float()

    expected = [[nearest(value / float(scale), numbers) for value in row] for row in weight.float().tolist()]
    assert torch.allclose(stored, torch.tensor(expected), rtol=0, atol=0)
    assert float(stored.abs().max()) == 448


def test_block_scales_reach_to_the_edges_of_the_weight():
    weight = random_weight(200, 300).float()
    weight[130:, 260:] = 0

    scales = float8_blocks.block_scales(weight)

    for i in range(2):
        for j in range(3):
            amax = weight[128 * i : 128 * (i + 1), 128 * j : 128 * (j + 1)].abs().max()
            assert float(scales[i, j]) == pytest.approx(float(amax) / 448 or 1.0)
    linear = Linear(algo="FP8_BLOCK_SCALES", weight=float8_blocks.stored(weight, scales), weight_scale=scales)
    dequantized = quant.format_of("FP8_BLOCK_SCALES").dequantize(linear)
    by_element = [[float(linear.weight[n, k].float() * scales[n // 128, k // 128]) for k in (0, 299)] for n in (0, 199)]
    assert [[float(dequantized[n, k]) for k in (0, 299)] for n in (0, 199)] == by_element
    assert torch.allclose(dequantized, weight, rtol=2**-4, atol=float(scales.max()) * 2**-10)


def e4m3_rounded(values: list[float], scale: float) -> list[float]:
    numbers = e4m3_numbers()
    return [nearest(value / scale, numbers) * scale for value in values]


def test_block_fp8_rounds_each_run_of_128_inputs_of_a_token_by_itself():
    inputs = random_inputs(columns=160, tokens=3)
    linear = Linear(algo="FP8_BLOCK_SCALES", weight=torch.zeros(1, 160, dtype=torch.float8_e4m3fn))

    found = quant.format_of(linear.algo).quantize_input(inputs, linear)

    for token, row in zip(found.tolist(), inputs.tolist(), strict=True):
        runs = (row[:128], row[128:])
        expected = [value for run in runs for value in e4m3_rounded(run, max(map(abs, run)) / 448)]
        assert token == pytest.approx(expected, rel=1e-6)


def test_rowwise_fp8_rounds_each_token_by_itself():
    inputs = random_inputs(columns=40, tokens=3)
    linear = Linear(algo="FP8_PER_CHANNEL_PER_TOKEN", weight=torch.zeros(1, 40, dtype=torch.float8_e4m3fn))

    found = quant.format_of(linear.algo).quantize_input(inputs, linear)

    for token, row in zip(found.tolist(), inputs.tolist(), strict=True):
        assert token == pytest.approx(e4m3_rounded(row, max(map(abs, row)) / 448), rel=1e-6)


def test_int8_inputs_are_rounded_to_even_and_saturate_at_minus_128_and_127():
    linear = Linear(
        algo="W8A8_SQ_PER_CHANNEL", weight=torch.zeros(1, 6, dtype=torch.int8), activation_scale=torch.tensor(0.5)
    )

    found = quant.format_of(linear.algo).quantize_input(torch.tensor([[0.25, 0.75, -0.3, 70.0, -70.0, 10.1]]), linear)

    assert found.tolist() == [[0.0, 1.0, -0.5, 63.5, -64.0, 10.0]]


def test_nvfp4_inputs_take_a_block_scale_in_e4m3_under_the_static_one():
    inputs = random_inputs(columns=32, tokens=3)
    static = float(inputs.abs().max()) / (6 * 448)
    linear = Linear(algo="NVFP4", weight=torch.zeros(1, 32, dtype=torch.uint8), activation_scale=torch.tensor(static))

    found = quant.format_of("NVFP4").quantize_input(inputs, linear)

    numbers = e4m3_numbers()
    for token, row in zip(found.tolist(), inputs.tolist(), strict=True):
        expected = []
        for block in (row[:16], row[16:]):
            scale = nearest(max(map(abs, block)) / (6 * static), numbers) * static
            expected += [nearest(max(-6, min(6, value / scale)), E2M1) * scale for value in block]
        assert token == pytest.approx(expected, rel=1e-5)


def test_nvfp4_weights_are_numbers_times_both_scales():
    codes = torch.arange(16, dtype=torch.uint8).repeat(2, 2)  # [2, 32]
    scales = torch.tensor([[1.0, 2.0], [0.5, 448.0]]).to(torch.float8_e4m3fn)
    linear = Linear(algo="NVFP4", weight=codes, weight_scale=scales, weight_scale_2=torch.tensor(0.25))

    found = quant.format_of("NVFP4").dequantize(linear)

    expected = [[number * scale * 0.25 for scale in row for number in E2M1] for row in ([1, 2], [0.5, 448])]
    assert found.tolist() == expected


def test_w4a8_weights_pass_through_e4m3_under_the_second_scale():
    integers, scale, second = (
        torch.tensor([[7, -8, 3, 1]], dtype=torch.int8),
        torch.tensor([[0.3]]),
        torch.tensor(0.005),
    )
    linear = Linear(algo="W4A8_AWQ", weight=integers, weight_scale=scale, weight_scale_2=second)

    found = quant.format_of("W4A8_AWQ").dequantize(linear)

    assert found.tolist()[0] == pytest.approx(e4m3_rounded([2.1, -2.4, 0.9, 0.3], 0.005), rel=1e-6)


@pytest.mark.parametrize(
    ("algo", "scale_name", "scalar"),
    [
        ("FP8_PER_CHANNEL_PER_TOKEN", "per_channel_scale", (1,)),
        ("W8A8_SQ_PER_CHANNEL", "weights_scaling_factor", (1,)),
        ("W4A8_AWQ", "weights_scaling_factor", (1,)),
        ("NVFP4", "weights_scaling_factor", ()),
    ],
)
def test_scales_have_tensorrt_llms_names_and_shapes(algo, scale_name, scalar):
    form = quant.format_of(algo)

    assert form.trtllm_names["weight_scale"] == scale_name
    assert form.trtllm_scalar_shape == scalar
    assert form.hf_names["weight_scale"] == "weight_scale"
