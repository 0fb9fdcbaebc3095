"""Cards are recommended by cost at the SLO, with reasons, and what holds whatever the card."""

import dataclasses
import functools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.shapes import LLAMA_8B, LLAMA_70B
from toolkit import gpus, plan, quant, releases, speeds
from toolkit.errors import PlanInfeasible
from toolkit.plan import demand, limits, recommend, speed
from toolkit.plan.candidates import Bought, candidate
from toolkit.specs import Sharding, Slo, Workload

CHAT = Workload(isl=1024, osl=256, isl_max=1024, osl_max=256)
PRICES = {"a4500": 0.35, "l4": 0.44, "rtx-4090": 0.40, "h100-sxm": 2.0, "l40s": 0.9, "a100-80gb-sxm": 1.2}


def target(gpu):
    card = gpu if not isinstance(gpu, str) else gpus.get(gpu)
    return plan.Target(gpu=card, **releases.facts_of(releases.default()))


def predict(setup, load):
    return speed.predict(setup, load, constants=speeds.constants())


def price_of(gpu, factor=1.0):
    each = PRICES.get(gpu.name)
    return Bought(per_gpu_hour=each * factor, currency="EUR") if each else None


def recommended(
    cards=tuple(PRICES), recipes=("fp16", "fp8", "int8", "int4"), model=LLAMA_8B, prices=price_of, **wanted
):
    return recommend.recommend(
        model,
        [target(name) for name in cards],
        [quant.get(name) for name in recipes],
        wanted=recommend.Wanted(**{"workload": CHAT, **wanted}),
        prices=prices,
        predict=predict,
    )


def made(gpu="a4500", recipe="int4", model=LLAMA_8B, sharding=None, **asked):
    asked = limits.Asked(**{"workload": CHAT, **asked})
    return candidate(model, target(gpu), quant.get(recipe), sharding=sharding or Sharding(), asked=asked)


def test_options_are_ranked_by_the_months_cost_and_all_of_them_carry_the_load():
    load = dataclasses.replace(CHAT, rate_rps=3.0)
    found = recommended(workload=load, slo=Slo(ttft_ms=800, tpot_ms=60))

    costs = [option.cost.per_month for option in found.options]
    assert costs == sorted(costs)
    assert len(costs) > 5
    for option in found.options:
        assert option.prediction.ttft_ms.mid <= 800
        assert option.prediction.tpot_ms.mid <= 60
        assert option.rate_rps * recommend.UTILISATION >= 3.0


def test_the_front_holds_what_nobody_beats_in_cost_and_time():
    found = recommended(workload=dataclasses.replace(CHAT, rate_rps=3.0))

    for option in found.options:
        beaten = any(
            best.cost.per_month <= option.cost.per_month
            and best.prediction.tpot_ms.mid <= option.prediction.tpot_ms.mid
            for best in found.front
        )
        assert beaten


def test_what_is_rejected_says_why():
    found = recommended(("a4500",), ("fp16", "fp8"), slo=Slo(tpot_ms=15))

    reasons = {each.quant: each.reason for each in found.rejected}
    assert reasons["fp8"] == "fp8 needs sm_89 or newer; NVIDIA RTX A4500 is sm_86."
    assert reasons["fp16"].startswith("TPOT is ")
    assert "one request alone" in reasons["fp16"]


def test_when_nothing_carries_the_load_the_nearest_miss_says_what_it_would_meet():
    found = recommended(slo=Slo(ttft_ms=0.5))

    assert found.options == ()
    assert found.nearest.miss == min(each.miss for each in found.rejected)
    assert found.nearest.option.prediction.ttft_ms.mid == pytest.approx(0.5 * found.nearest.miss)


def test_a_model_that_no_card_holds_alone_goes_over_pcie_in_stages_before_shares():
    found = recommended(("l40s",), ("fp8",), model=LLAMA_70B)

    assert [option.candidate.sharding for option in found.options] == [Sharding(pp=2)]


def test_over_nvlink_ranks_share_layers():
    found = recommended(("h100-sxm",), ("fp16",), model=LLAMA_70B)

    assert [option.candidate.sharding for option in found.options] == [Sharding(tp=2)]


def test_replicas_come_before_ranks_of_a_model_that_fits():
    found = recommended(("a4500",), ("int4",), workload=dataclasses.replace(CHAT, concurrency=300))

    assert [option.candidate.sharding for option in found.options] == [Sharding()]
    assert found.options[0].replicas * found.options[0].concurrency >= 300


def test_what_replicas_serve_and_cost_is_that_of_their_share_of_the_load():
    full = recommended(("a4500",), ("int4",)).options[0].concurrency
    (option,) = recommended(("a4500",), ("int4",), workload=dataclasses.replace(CHAT, concurrency=full + 1)).options

    each = option.prediction.output_tps.mid
    assert option.replicas == 2
    assert option.served_tps == pytest.approx(2 * each)
    assert option.cost.per_million_output_tokens.mid == pytest.approx(2 * 0.35 / 3600 / (2 * each) * 1e6)


def test_what_is_above_the_budget_is_rejected_with_its_cost():
    found = recommended(("h100-sxm",), ("fp8",), budget_per_month=1000.0)

    assert [each.reason for each in found.rejected] == ["1,460 EUR a month is above the budget"]


def test_users_are_a_rate_by_littles_law():
    rate = demand.rate_of_users(500, 6, 3)
    found = predict(made().setup, dataclasses.replace(CHAT, concurrency=8))

    assert rate == pytest.approx(2.5)
    in_flight = demand.rate_at(found, concurrency=8, osl=256) * demand.latency_s(found, 256)
    assert in_flight == pytest.approx(8)


def test_a_trace_becomes_means_longest_and_spread():
    found = demand.workload_of_trace([(100, 10), (300, 30)])

    assert found == Workload(isl=200, osl=20, isl_max=300, osl_max=30, isl_cv=0.5, osl_cv=0.5)


def fits(**changes):
    try:
        return made(**changes).sizing
    except PlanInfeasible:
        return None


@functools.cache
def card(mib):
    return dataclasses.replace(gpus.get("a4500"), memory_usable_mib=mib)


SIZES = st.integers(4_000, 120_000)


@given(mib=SIZES, extra=st.integers(0, 50_000), recipe=st.sampled_from(["fp16", "int8", "int4"]))
def test_more_memory_never_makes_a_feasible_plan_infeasible(mib, extra, recipe):
    small, large = fits(gpu=card(mib), recipe=recipe), fits(gpu=card(mib + extra), recipe=recipe)

    assert small is None or large is not None
    if small:
        assert large.max_concurrency >= small.max_concurrency
        # One more request takes a little room from the cache for its buffers.
        assert large.memory.total - large.memory.weights >= small.memory.total - small.memory.weights
        assert large.memory.kv_cache + large.memory.runtime >= small.memory.kv_cache + small.memory.runtime


@given(mib=SIZES, tokens=st.integers(64, 60_000), more=st.integers(0, 60_000))
def test_a_longer_context_never_allows_more_users(mib, tokens, more):
    def of(isl):
        return fits(gpu=card(mib), workload=dataclasses.replace(CHAT, isl=isl, isl_max=isl))

    short, long = of(tokens), of(tokens + more)

    assert long is None or (short is not None and short.max_concurrency >= long.max_concurrency)


@given(mib=SIZES)
def test_fewer_bits_never_need_more_bytes_nor_hold_fewer_users(mib):
    found = [fits(gpu=card(mib), recipe=name) for name in ("int4", "int8", "fp16")]

    sizes = [each.memory.weights for each in found if each]
    users = [each.max_concurrency if each else 0 for each in found]
    assert sizes == sorted(sizes)
    assert users == sorted(users, reverse=True)


@settings(max_examples=20)
@given(factor=st.floats(0.01, 100))
def test_cost_scales_with_the_price(factor):
    def options(scale):
        return recommended(("l4",), ("int4",), prices=lambda gpu: price_of(gpu, scale)).options

    (plain,), (scaled,) = options(1.0), options(factor)

    for name in ("per_hour", "per_month"):
        assert getattr(scaled.cost, name) == pytest.approx(factor * getattr(plain.cost, name))
    million = scaled.cost.per_million_output_tokens
    assert million.mid == pytest.approx(factor * plain.cost.per_million_output_tokens.mid)


@given(mib=SIZES, headroom=st.sampled_from([0.8, 0.9]))
def test_no_more_of_a_card_is_used_than_headroom_leaves(mib, headroom):
    found = fits(gpu=card(mib), headroom=headroom)

    if found:
        used = found.memory.total - found.memory.free
        assert used <= headroom * found.memory.total + 1
        assert sum(dataclasses.astuple(found.memory)[:-1]) == found.memory.total
