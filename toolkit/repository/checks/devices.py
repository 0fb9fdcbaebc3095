"""6: instances, their GPUs and their ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from toolkit.repository.check import Check
from toolkit.repository.engines import facts_of
from toolkit.repository.parameters import DEVICES
from toolkit.repository.seen import Model, Seen


def run(seen: Seen) -> Iterator[str]:
    """Name instances without GPUs of their own, and sets that no instance takes."""
    taken: dict[str, str] = {}
    for model in seen.with_role("tensorrt_llm"):
        instances = sum(max(group.count, 1) for group in model.config.instance_group) or 1
        facts = facts_of(model, seen)
        ranks = facts.ranks if facts else 0
        yield from _gpus(model, instances, ranks, taken)
        yield from _participants(model, instances, ranks)


def sets_of(model: Model, key: str) -> list[list[str]]:
    """Return `0,1;2,3` as [[0, 1], [2, 3]]; nothing for what is no such text."""
    text = model.value(key)
    return [one.split(",") for one in text.split(";")] if DEVICES.fullmatch(text) else []


def _gpus(model: Model, instances: int, ranks: int, taken: dict[str, str]) -> Iterator[str]:
    name, sets = model.name, sets_of(model, "gpu_device_ids")
    if instances > 1 and not sets:
        yield f"{name}: {instances} instances would share every GPU; gpu_device_ids must say which each one takes."
    if not sets:
        return
    if len(sets) != instances:
        yield f"{name}: gpu_device_ids has {len(sets)} sets, and instance_group has {instances}."
    yield from _sizes(name, "gpu_device_ids", sets, ranks)
    for device, count in Counter(device for one in sets for device in one).items():
        if count > 1:
            yield f"{name}: GPU {device} is in gpu_device_ids {count} times."
        if device in taken and not model.value("max_tokens_in_paged_kv_cache"):
            yield (
                f"{name}: GPU {device} is {taken[device]}'s too; max_tokens_in_paged_kv_cache must say how much of it"
                " this one takes."
            )
        taken[device] = name


def _participants(model: Model, instances: int, ranks: int) -> Iterator[str]:
    name, sets = model.name, sets_of(model, "participant_ids")
    if not sets:
        return
    if len(sets) != instances:
        yield f"{name}: participant_ids has {len(sets)} sets, and instance_group has {instances}."
    if any("0" in one for one in sets):
        yield f"{name}: participant_ids has rank 0, which is the orchestrator's."
    yield from _sizes(name, "participant_ids", sets, ranks)


def _sizes(name: str, key: str, sets: list[list[str]], ranks: int) -> Iterator[str]:
    for one in sets:
        if ranks and len(one) != ranks:
            yield f"{name}: {key} has a set of {len(one)}: {','.join(one)}; the engine has {ranks} ranks."


CHECK = Check(number=6, name="devices", title="instances, GPUs and ranks", run=run)
