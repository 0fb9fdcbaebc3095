"""Numbers with a unit on the command line: 64g, 200GB, 30d."""

from __future__ import annotations

import re
from collections.abc import Mapping

from toolkit.errors import UsageError

#: As Docker counts, in powers of 1024, and as disks are sold.
MEMORY_BYTES = {"": 1, **{unit + end: 1 << 10 * (i + 1) for i, unit in enumerate("kmgt") for end in ("", "b", "ib")}}
DISK_BYTES = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
TIME_S = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def amount(option: str, text: str | None, units: Mapping[str, int], *, example: str) -> int | None:
    """Return what an option's text says in the smallest unit, None for none; capital letters do not matter."""
    if text is None:
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", text)
    factor = units.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise UsageError(f"{option} {text!r} is no amount.", hint=f"{option} {example}")
    return int(float(found[1]) * factor)
