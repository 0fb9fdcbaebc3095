"""Which GPUs of this machine serve an artefact."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.serve.targets import Artefact
    from toolkit.specs.machine import LocalGpu


def chosen(found: Artefact, asked: str | None) -> tuple[str, ...]:
    """Return the UUIDs that were asked for, or of the cards that fit and have most memory free."""
    from toolkit import machine

    if found.is_for_cpu:
        return ()
    if asked:
        return _need_enough(found, tuple(filter(None, (word.strip() for word in asked.split(",")))))
    seen = machine.look()
    return best(found, seen.gpus, fault=seen.fault)


def best(found: Artefact, gpus: tuple[LocalGpu, ...], *, fault: str = "") -> tuple[str, ...]:
    """Return the cards of the plan's own kind with most memory free, else of its SM; one kind for all ranks."""
    from toolkit.errors import MissingError

    same = [gpu for gpu in gpus if gpu.name == found.gpu_name] or [gpu for gpu in gpus if gpu.sm == found.sm]
    # Ranks of one engine run on one kind of GPU.
    same = [gpu for gpu in same if gpu.title == same[0].title]
    if len(same) < found.world_size:
        have = ", ".join(f"{gpu.title} (sm_{gpu.sm})" for gpu in gpus) or fault or "none"
        count = f"{found.world_size} of " if found.world_size > 1 else ""
        raise MissingError(
            f"{found.folder} is for {count}{found.gpu} (sm_{found.sm}); this machine's GPUs: {have}.",
            hint="`trtk doctor` looks at drivers and Docker; --gpus UUID,… takes others; here: trtk build --gpu cpu",
        )
    ranked = sorted(same, key=lambda gpu: (-gpu.memory_free_mib, gpu.uuid))
    return tuple(gpu.uuid for gpu in ranked[: found.world_size])


def _need_enough(found: Artefact, uuids: tuple[str, ...]) -> tuple[str, ...]:
    from toolkit.errors import UsageError

    if len(uuids) < found.world_size:
        raise UsageError(
            f"--gpus names {len(uuids)} GPUs; {found.folder} needs {found.world_size}, one for each rank.",
            hint="`nvidia-smi -L` lists UUIDs.",
        )
    return uuids
