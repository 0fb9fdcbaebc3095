"""Calibration remembers what it is asked for, and names what is not finite."""

import pytest
import torch

from tests.quant.groups import random_inputs
from toolkit.errors import BuildError
from toolkit.quant.statistics import InputStatistics, Wanted, diagonal_blocks

ALL = Wanted.AMAX | Wanted.CHANNELS | Wanted.GRAM


def test_statistics_are_those_of_all_tokens_together():
    inputs = random_inputs(columns=600, tokens=90)  # more columns than one panel
    found = InputStatistics("x", ALL)

    for start in (0, 30, 60):
        found.add(inputs[start : start + 30].view(2, 15, 600))

    assert found.tokens == 90
    assert found.amax == float(inputs.abs().max())
    assert torch.allclose(found.mean_abs, inputs.abs().mean(0), rtol=1e-5)
    assert torch.allclose(found.mean_square, inputs.square().mean(0), rtol=1e-5)
    assert torch.equal(found.max_abs, inputs.abs().amax(0))


def test_the_second_moment_keeps_its_diagonal_and_shrinks_the_rest():
    inputs = random_inputs(columns=600, tokens=90).double()
    found = InputStatistics("x", Wanted.GRAM)
    found.add(inputs.float())

    gram = inputs.T @ inputs / 90
    kept = 90 / (90 + 600)
    expected = kept * gram + (1 - kept) * torch.diag(gram.diagonal())

    assert torch.allclose(found.gram.double(), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(found.gram, found.gram.T)


def test_an_output_error_is_the_quadratic_form_of_the_change():
    inputs, change = random_inputs(columns=300), torch.randn(7, 300, generator=torch.Generator().manual_seed(3))
    found = InputStatistics("x", Wanted.GRAM)
    found.add(inputs)

    assert float(found.output_error(change)) == pytest.approx(float((change @ found.gram @ change.T).trace()), rel=1e-4)


def test_diagonal_blocks_are_cut_out_of_a_matrix():
    matrix = torch.arange(16.0).view(4, 4)

    assert diagonal_blocks(matrix, 2).tolist() == [[[0, 1], [4, 5]], [[10, 11], [14, 15]]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("wanted", [Wanted.AMAX, ALL])
def test_an_input_that_is_not_finite_is_named(bad, wanted):
    inputs = random_inputs(tokens=5)
    inputs[2, 7] = bad

    with pytest.raises(BuildError, match="The input of layer 3 mlp.proj becomes NaN or Inf"):
        InputStatistics("layer 3 mlp.proj", wanted).add(inputs)


def test_no_tokens_are_nothing():
    found = InputStatistics("x", ALL)

    found.add(torch.zeros(0, 16))

    assert (found.tokens, found.amax) == (0, 0.0)
