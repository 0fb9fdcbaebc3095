"""Searches are worth their time: never worse than the plain rule on the calibration's own output error."""

import pytest
import torch

from tests.quant.groups import output_error, quantized, random_inputs, random_weight, random_weights
from toolkit.errors import BuildError
from toolkit.quant import awq, blocks, float4, gptq, int4, int4_search, nvfp4, nvfp4_search, smoothquant
from toolkit.quant.algorithm import LinearGroup, Settings
from toolkit.quant.statistics import InputStatistics, Wanted, diagonal_blocks


def textbook_gptq(weight, scales, gram, nearest):
    """GPTQ as its paper has it: the inverse's Cholesky factor in float64, column by column, strongest input first."""
    columns = weight.shape[1]
    order = torch.argsort(gram.diagonal(), stable=True).flip(0)
    damped = gram.double() + gptq.DAMPING * gram.diagonal().mean() * torch.eye(columns)
    factor = torch.linalg.cholesky(torch.linalg.inv(damped[order][:, order]), upper=True)
    left = weight.double()[:, order]
    real = scales.double().repeat_interleave(columns // scales.shape[1], 1)[:, order]
    numbers = torch.zeros_like(left)
    for j in range(columns):
        numbers[:, j] = nearest((left[:, j] / real[:, j]).float())
        error = (left[:, j] - numbers[:, j] * real[:, j]) / factor[j, j]
        left[:, j:] -= error[:, None] * factor[j, j:]
    found = torch.zeros_like(numbers)
    found[:, order] = numbers
    return found.float()


@pytest.mark.parametrize("columns", [64, 16, 208])
def test_rounding_with_feedback_is_the_papers(columns):
    weight, inputs = random_weight(40, columns).float(), random_inputs(columns, tokens=400)
    gram, scales = inputs.T @ inputs / 400, int4.group_scales(weight, 16)

    found = gptq.rounded(weight, scales, gptq.feedback(gram), nearest=int4.nearest_)

    assert torch.equal(found, textbook_gptq(weight, scales, gram, int4.nearest_))


def test_feedback_for_scaled_inputs_is_that_of_the_scaled_second_moment():
    inputs, factors = random_inputs(64), torch.rand(64) + 0.5
    gram = inputs.T @ inputs / len(inputs)
    scaled = (inputs * factors).T @ (inputs * factors) / len(inputs)

    found, expected = gptq.feedback(gram, factors), gptq.feedback(scaled)

    assert torch.equal(found.order, expected.order)
    assert torch.allclose(found.shares, expected.shares, atol=1e-4)


def test_inputs_that_are_all_alike_still_round():
    same = torch.ones(5, 64)

    found = gptq.rounded(
        weight := random_weight(4, 64).float(),
        scales := int4.group_scales(weight, 64),
        gptq.feedback(same.T @ same / 5),
        nearest=int4.nearest_,
    )

    change = int4.dequantized(found, scales).sum(1) - weight.sum(1)
    assert float(change.abs().max()) < float(scales.max())


def test_a_second_moment_that_is_none_is_named():
    with pytest.raises(BuildError, match="too much alike"):
        gptq.feedback(-torch.eye(8) - torch.ones(8, 8))


@pytest.mark.parametrize(("better", "worse"), [("int4", "int4_rtn"), ("int4_gptq", "int4_rtn"), ("int4", "int4_gptq")])
def test_calibrated_int4_is_better_on_the_calibrations_output(better, worse):
    weights, inputs = random_weights(), random_inputs()

    errors = [
        output_error(quantized(name, weights, inputs, group_size=64), weights, inputs) for name in (better, worse)
    ]

    assert errors[0] < 0.95 * errors[1]


def statistics_of(inputs):
    statistics = InputStatistics("x", Wanted.CHANNELS | Wanted.GRAM)
    statistics.add(inputs)
    return statistics


def test_clipped_scales_are_no_worse_than_amax_for_any_group():
    weight, blocks = random_weight(48, 128).float(), diagonal_blocks(statistics_of(random_inputs(128)).gram, 32)
    plain = int4.group_scales(weight, 32)

    def errors(scales):
        change = (int4.dequantized(int4.rounded(weight, scales), scales) - weight).view(48, 4, 32)
        return torch.einsum("ngi,gij,ngj->ng", change, blocks, change)

    found = int4_search.clipped_scales(weight, blocks)

    assert (errors(found) <= errors(plain) * (1 + 1e-4)).all()
    assert (errors(found) < 0.99 * errors(plain)).any()


def test_nvfp4_scales_are_no_worse_than_amax_for_any_block():
    weight, blocks = random_weight(48, 128).float(), diagonal_blocks(statistics_of(random_inputs(128)).gram, 16)
    scale = nvfp4.global_scale(weight.abs().max())

    def errors(scales):
        numbers = nvfp4.rounded(weight, scales, scale)
        change = (nvfp4.dequantized(numbers, scales, scale) - weight).view(48, 8, 16)
        return torch.einsum("ngi,gij,ngj->ng", change, blocks, change)

    plain, found = (
        errors(nvfp4.block_scales(weight, scale)),
        errors(nvfp4_search.searched_scales(weight, scale, blocks)),
    )

    assert (found <= plain * (1 + 1e-4)).all()
    assert found.sum() < 0.9 * plain.sum()


def test_nvfp4_beats_max_calibration_on_the_calibrations_output():
    weight, inputs = random_weight(96, 256), random_inputs()
    scale = nvfp4.global_scale(weight.abs().max())
    scales = nvfp4.block_scales(weight.float(), scale)
    plain = nvfp4.dequantized(nvfp4.rounded(weight.float(), scales, scale), scales, scale)

    linear = quantized("nvfp4", {"mlp.proj": weight}, inputs)["mlp.proj"]
    found = nvfp4.dequantized(float4.values(linear.weight), linear.weight_scale, linear.weight_scale_2)

    of_plain, of_found = ((inputs @ (w - weight.float()).T).square().sum() for w in (plain, found))
    assert of_found < 0.6 * of_plain


def test_awq_takes_the_candidate_with_the_least_output_error():
    weights, inputs = random_weights({"mlp.proj": 64}), random_inputs()
    statistics = statistics_of(inputs)
    group = LinearGroup(layer=0, name="mlp.proj", weights=weights, statistics=statistics)

    factors = awq.prequant(group, Settings(dtype=torch.float16, group_size=64)).float()

    def error_of(factors):
        scaled = weights["mlp.proj"].float() / factors
        change = int4.dequantized(int4.rounded(scaled, s := int4.group_scales(scaled, 64)), s) * factors
        change -= weights["mlp.proj"].float()
        return float(((change @ statistics.gram) * change).sum())

    tried = {a: (1 / awq.channel_scales(statistics.mean_abs, a)).half().float() for a in awq.COARSE_ALPHAS}
    assert error_of(factors) <= min(map(error_of, tried.values())) * (1 + 1e-4)
    assert error_of(factors) < 0.9 * error_of(torch.ones(256))


def test_smoothing_beats_every_fixed_alpha_that_it_tried():
    weights, inputs = random_weights(), random_inputs()

    def fixed(alpha, patch):
        patch.setattr(smoothquant, "ALPHAS", (alpha,))
        return output_error(quantized("int8_sq", weights, inputs), weights, inputs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(smoothquant, "HEADROOM", 1.0)  # which the search leaves out
        searched = output_error(quantized("int8_sq", weights, inputs), weights, inputs)
        errors = [fixed(alpha, patch) for alpha in (*smoothquant.ALPHAS, 0.0)]
    assert searched <= 1.02 * min(errors)
    assert searched < 0.5 * errors[-1]


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_smoothing_divides_inputs_and_multiplies_weights_by_the_papers_factors(alpha, monkeypatch):
    weights, inputs = random_weights(), random_inputs()
    monkeypatch.setattr(smoothquant, "ALPHAS", (alpha,))

    prequant = quantized("int8_sq", weights, inputs)["attention.k"].prequant.double()

    of_weights = torch.cat([weight.double() for weight in weights.values()]).abs().amax(0)
    papers = inputs.double().abs().amax(0) ** alpha / of_weights ** (1 - alpha)
    ratios = prequant * papers  # 1 / prequant, up to one factor for all that keeps float16 in range
    assert torch.allclose(ratios, ratios[0].expand(256), rtol=2e-3)


def test_parts_that_are_rounded_together_are_those_rounded_alone(monkeypatch):
    weights, inputs = random_weights(), random_inputs()
    monkeypatch.setattr(blocks, "CPU_CHUNK_ELEMENTS", 100 * 256)  # q in three pieces, the last with all of k

    together = quantized("int4_gptq", weights, inputs, group_size=64)

    for part, weight in weights.items():
        (alone,) = quantized("int4_gptq", {part: weight}, inputs, group_size=64).values()
        assert torch.equal(together[part].weight, alone.weight), part
        assert torch.equal(together[part].weight_scale, alone.weight_scale), part


def test_each_part_keeps_its_own_global_scale_in_nvfp4():
    weights, inputs = random_weights(), random_inputs()
    gram = inputs.T @ inputs / len(inputs)
    scales = {
        part: nvfp4.global_scale(weight.abs().amax() * (1 + i)) for i, (part, weight) in enumerate(weights.items())
    }

    together = nvfp4_search.quantized(weights, scales, gram)

    for part, weight in weights.items():
        codes, block_scales = nvfp4_search.quantized({part: weight}, {part: scales[part]}, gram)[part]
        assert torch.equal(together[part][0], codes), part
        assert torch.equal(together[part][1].float(), block_scales.float()), part


def test_inputs_beyond_the_calibrations_largest_do_not_saturate_at_once():
    weights, inputs = random_weights(), random_inputs()

    linear = quantized("int8_sq", weights, inputs)["attention.q"]

    largest = (inputs * linear.prequant.float()).abs().max()
    assert float(linear.activation_scale * 127 / largest) == pytest.approx(smoothquant.HEADROOM, rel=1e-5)
