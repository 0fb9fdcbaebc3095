"""What a model is charged with, from its plan and from what was measured; and what can never fit."""

import dataclasses

import pytest

from toolkit.errors import PlanInfeasible
from toolkit.pool import ledger
from toolkit.pool.config import PoolConfig, Size
from toolkit.pool.journal import Journal
from toolkit.pool.lending import Entry
from toolkit.pool.sizes import size_of

MIB = 1 << 20


@pytest.fixture
def config_of(tmp_path):
    def make(*models, memory_mib=200):
        return PoolConfig(
            models=models,
            memory_bytes=memory_mib * MIB,
            repository=str(tmp_path),
            journal=str(tmp_path / "journal.jsonl"),
            snapshot=str(tmp_path / "snapshot.json"),
            created=0,
        )

    return make


def test_a_model_larger_than_the_limit_is_refused_with_its_parts(config_of, model):
    with pytest.raises(PlanInfeasible) as refused:
        ledger.need_to_fit(config_of(model("a"), model("b", 250)))

    assert str(refused.value) == (
        "The model 'b' takes 250 MiB (weights 220, 64 tokens of cache 10, activations 10, processes 10); with it the"
        " device would hold 250 MiB, and --memory is 200 MiB."
    )
    assert refused.value.hint == "Give --memory 250MiB."
    assert refused.value.exit_code == 3


def test_fewer_tokens_are_advised_where_they_are_enough_and_it_then_fits(config_of, model):
    size = Size(weights_bytes=100 * MIB, kv_bytes=4096 * 32768, activation_bytes=0, runtime_bytes=0)
    large = model("a", size=size, kv_tokens=4096, kv_bytes_per_token=32768)

    with pytest.raises(PlanInfeasible) as refused:
        ledger.need_to_fit(config_of(large))

    assert refused.value.hint == "Give --memory 228MiB, or fewer tokens: --kv-tokens a=3200."
    fitting = dataclasses.replace(size, kv_bytes=3200 * 32768)
    ledger.need_to_fit(config_of(dataclasses.replace(large, size=fitting, kv_tokens=3200)))


def test_a_model_must_fit_beside_what_is_pinned_and_the_others_need_not(config_of, model):
    ledger.need_to_fit(config_of(model("a", 150), model("b", 150)))

    with pytest.raises(PlanInfeasible, match="with it beside a, pinned, the device would hold 300 MiB"):
        ledger.need_to_fit(config_of(model("a", 150, is_pinned=True), model("b", 150)))


def test_what_was_measured_of_the_same_bytes_decides_and_not_of_others(config_of, model):
    config = config_of(model("a"), model("b"), model("c", kv_tokens=128, artefact="sha-a"))
    written = Journal(ledger.Path(config.journal))
    written.write("unloaded", "renamed", artefact="sha-a", kv_tokens=64, peak_bytes=180 * MIB)
    written.close()

    assert ledger.sizes_bytes(config) == {"a": 180 * MIB, "b": 100 * MIB, "c": 100 * MIB}


def test_a_smaller_size_is_believed_only_after_a_whole_stay_at_work_and_with_the_cache_added(model):
    entry = Entry(model=model("a"), peak_bytes=40 * MIB)

    assert entry.size_bytes == 100 * MIB
    entry.is_known_at_work = True
    assert entry.size_bytes == (40 + 10 + 10) * MIB
    entry.peak_bytes = 95 * MIB
    assert entry.size_bytes == 100 * MIB
    entry.peak_bytes = 120 * MIB
    assert entry.size_bytes == 120 * MIB


def test_a_gpu_engine_takes_its_weights_its_tokens_and_what_the_planner_counts_beside(demo_plan):
    plan = dataclasses.replace(demo_plan, flow="engine", weights_bytes=1000, kv_bytes_per_token=3)

    assert size_of(plan, kv_tokens=5, activation_bytes=7, runtime_bytes=11) == Size(
        weights_bytes=1000, kv_bytes=15, activation_bytes=7, runtime_bytes=11
    )


@pytest.mark.parametrize(
    ("bits", "stored_mib", "at_work_mib"), [(4, 111, 536), (8, 156, 617), (16, 257, 1241)], ids=["int4", "int8", "fp16"]
)
def test_on_a_cpu_the_computed_size_is_close_above_what_the_demo_took(demo_plan, bits, stored_mib, at_work_mib):
    """536, 617 and 1,241 MiB are PSS without the cache, of the engine's process alone, measured at 8 requests."""
    recipe = dataclasses.replace(demo_plan.conversion.recipe, weight_bits=bits)
    conversion = dataclasses.replace(demo_plan.conversion, recipe=recipe)
    plan = dataclasses.replace(demo_plan, conversion=conversion, weights_bytes=stored_mib * MIB)
    size = size_of(plan, kv_tokens=1, activation_bytes=0, runtime_bytes=0)
    engine_mib = (size.weights_bytes + size.runtime_bytes) / MIB - 3 * 64

    assert at_work_mib <= engine_mib < 1.1 * at_work_mib
