"""Objectives of a promise as numbers: `ttft=500ms@p95` → 500."""

from __future__ import annotations

import re

from toolkit.specs import Promise

PATTERN = re.compile(r"(ttft|itl|tpot|e2e)=([0-9.]+)(ms|s)(?:@p[0-9.]+)?")


def milliseconds(promise: Promise) -> dict[str, float]:
    """Return what a request may take, by ttft, itl and e2e; of two for the same time, the stricter one."""
    found: dict[str, float] = {}
    for text in promise.slos:
        match = PATTERN.fullmatch(text.replace(" ", ""))
        if match is None:
            continue
        name = "itl" if match[1] == "tpot" else match[1]
        value = float(match[2]) * (1000 if match[3] == "s" else 1)
        found[name] = min(value, found.get(name, value))
    return found
