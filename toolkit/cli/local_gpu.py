"""The card that is meant when --gpu is left out: the one in this machine, else its CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.machine import Nvml

CPU = "cpu"


def choose(found: Nvml) -> tuple[str, str]:
    """Return the name of the GPU to build for and the reason; raises UsageError for cards that nobody can choose."""
    if not found.gpus:
        return CPU, found.fault or "the driver sees no GPU"
    strangers = [card for card in found.gpus if not card.name]
    if strangers:
        card = strangers[0]
        raise UsageError(
            f"{card.title} (sm_{card.sm}, {card.memory_total_mib} MiB) is not in the catalogue.",
            hint="Give --gpu a card of the same SM and no more memory; `trtk gpus` lists them.",
        )
    names = list(dict.fromkeys(card.name for card in found.gpus))
    if len(names) > 1:
        raise UsageError(
            f"This machine has several kinds of GPU: {', '.join(names)}.", hint=f"Say which: --gpu {names[0]}"
        )
    return names[0], f"{found.gpus[0].title} is in this machine"


def chosen(asked: str | None) -> str:
    """Return the asked GPU's name, or choose one and say so."""
    if asked is not None:
        return asked
    from toolkit import machine
    from toolkit.cli import output

    name, reason = choose(machine.look())
    output.note(f"--gpu {name}: {reason}.")
    return name
