"""Bits go where they take away most of the error, and never beyond what was asked."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit import quant
from toolkit.convert.allocation import Option, allocate, options_of

INT4, INT8, FP16 = (quant.get(name) for name in ("int4", "int8", "fp16"))
WEIGHTS = 100


def option(recipe, kl, weights=WEIGHTS):
    return Option(recipe=recipe, bits=recipe.weight_bits * weights, kl=kl)


def test_options_carry_the_bits_of_all_weights_and_16_bits_cost_nothing():
    options = options_of((INT4, INT8, FP16), 10, {"int4": 0.5, "int8": 0.1, "fp16": 0.0})

    assert options == [option(INT4, 0.5, 10), option(INT8, 0.1, 10), option(FP16, 0.0, 10)]


def test_the_group_that_gains_most_per_bit_gets_them():
    groups = {
        (0, "mlp.fc"): [option(INT4, 0.10), option(INT8, 0.01)],
        (0, "mlp.proj"): [option(INT4, 0.50), option(INT8, 0.02)],
    }

    made = allocate(groups, weights=2 * WEIGHTS, target_bits=6.0)

    assert dict(made.of) == {(0, "mlp.fc"): INT4, (0, "mlp.proj"): INT8}
    assert (made.mean_bits, made.kl) == (6.0, pytest.approx(0.12))


def test_a_bound_on_the_divergence_takes_the_fewest_bits_that_keep_it():
    groups = {(layer, "mlp.fc"): [option(INT4, 0.1 * (layer + 1)), option(INT8, 0.0)] for layer in range(4)}

    made = allocate(groups, weights=4 * WEIGHTS, max_kl=0.3)

    assert [made.of[layer, "mlp.fc"].name for layer in range(4)] == ["int4", "int4", "int8", "int8"]
    assert (made.mean_bits, made.kl) == (6.0, pytest.approx(0.3))


def test_a_candidate_that_is_worse_than_cheaper_ones_is_never_taken():
    groups = {(0, "mlp.fc"): [option(INT4, 0.1), option(INT8, 0.2), option(FP16, 0.0)]}

    assert allocate(groups, weights=WEIGHTS, target_bits=8.0).of[0, "mlp.fc"] == INT4
    assert allocate(groups, weights=WEIGHTS, max_kl=0.05).of[0, "mlp.fc"] == FP16


errors = st.lists(st.tuples(*[st.floats(0, 1)] * 2), min_size=1, max_size=5)


@given(errors, st.floats(4, 16))
def test_the_budget_is_kept_and_the_error_is_near_the_best_there_is(pairs, target_bits):
    groups = {
        (layer, "mlp.fc"): [option(INT4, max(pair)), option(INT8, min(pair)), option(FP16, 0.0)]
        for layer, pair in enumerate(pairs)
    }

    made = allocate(groups, weights=WEIGHTS * len(pairs), target_bits=target_bits)

    within = [
        sum(each.kl for each in choice)
        for choice in itertools.product(*groups.values())
        if sum(each.bits for each in choice) <= target_bits * WEIGHTS * len(pairs)
    ]
    assert made.mean_bits <= target_bits
    # The greedy of the relaxed problem is off by at most one group's error.
    assert min(within) <= made.kl + 1e-9
    assert made.kl <= min(within) + max(max(pair) for pair in pairs) + 1e-9
