"""Conversations turn by turn: what later ones cost, whose prompts grow, and what a prefix cache saves of it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from toolkit.bench.latency import distribution, itl_ms, ttft_ms
from toolkit.specs import RequestRecord


def by_turn(ok: Sequence[RequestRecord]) -> list[dict[str, Any]]:
    """Return a row for each turn; none where nobody had a second one."""
    numbers = sorted({record.turn for record in ok})
    return [_row(number, [record for record in ok if record.turn == number]) for number in numbers if numbers[-1] > 1]


def _row(number: int, records: Sequence[RequestRecord]) -> dict[str, Any]:
    return {
        "turn": number,
        "requests": len(records),
        "mean_input_tokens": statistics.fmean(record.input_tokens for record in records),
        "ttft_ms": distribution([value for record in records if (value := ttft_ms(record)) is not None]),
        "itl_ms": distribution([value for record in records if (value := itl_ms(record)) is not None]),
    }
