"""A key changes with what a result depends on, and with nothing else."""

import pytest

from toolkit import cache


@pytest.fixture
def model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(bytes(3 << 20))
    (tmp_path / "README.md").write_text("read me")
    return tmp_path


def test_one_byte_of_a_shard_changes_the_key(model):
    first = cache.key_of(sources=cache.sources_of(model))
    with (model / "model.safetensors").open("rb+") as stream:
        stream.seek(1 << 20)
        stream.write(b"\x01")

    assert cache.key_of(sources=cache.sources_of(model)) != first


def test_other_files_and_other_times_do_not_change_the_key(model):
    first = cache.key_of(sources=cache.sources_of(model))
    (model / "README.md").write_text("read this")
    (model / "model.safetensors").write_bytes(bytes(3 << 20))

    assert cache.key_of(sources=cache.sources_of(model)) == first
    assert set(cache.sources_of(model)) == {"config.json", "model.safetensors"}


def test_reasons_do_not_change_the_key_and_values_do():
    plan = {"group_size": 128, "choices": [{"name": "group_size", "reason": "it divides"}], "gpu": {"title": "A"}}
    worded = {"group_size": 128, "choices": [], "gpu": {"title": "B"}}

    assert cache.key_of(plan=plan) == cache.key_of(plan=worded)
    assert cache.key_of(plan=plan) != cache.key_of(plan={**plan, "group_size": 64})
    assert cache.key_of(plan=plan) != cache.key_of(build=plan)


def test_reading_a_large_source_is_shown(tmp_path):
    for name in ("a", "b"):
        with (tmp_path / f"{name}.safetensors").open("wb") as stream:
            stream.truncate(130 << 20)  # sparse: no room, and read in no time
    steps = []

    cache.sources_of(tmp_path, progress=lambda *step: steps.append(step))

    assert steps == [("Read the source", done << 20, 260 << 20) for done in (0, 130, 260)]
