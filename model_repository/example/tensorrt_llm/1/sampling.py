"""How tokens are chosen: a request's values in the words of OpenVINO GenAI."""

from __future__ import annotations

import math
from typing import Any

from served import Refused

#: What OpenVINO GenAI takes.
PENALTY_LIMIT = 2.0
#: Below it logits would overflow; the best token is what is meant.
COLDEST = 1e-4


def sampling_of(value: Any, max_tokens: int, number: int) -> dict[str, Any]:
    """Return what GenerationConfig is told; greedy unless top_k, top_p or a temperature asks for chance."""
    top_k, top_p, temperature = value("runtime_top_k", 0), value("runtime_top_p", 0.0), value("temperature", None)
    penalty, min_tokens = value("repetition_penalty", 1.0), value("min_tokens", 0)
    _check("top_k", top_k, is_fine=top_k >= 0, rule="0 or more")
    _check("top_p", top_p, is_fine=0 <= top_p <= 1, rule="between 0 and 1")
    _check("temperature", temperature, is_fine=0 <= (temperature or 0) < math.inf, rule="0 or more")
    _check("repetition_penalty", penalty, is_fine=0 < penalty < math.inf, rule="above 0")
    _check("min_tokens", min_tokens, is_fine=0 <= min_tokens <= max_tokens, rule=f"between 0 and {max_tokens}")
    asked = {"repetition_penalty": penalty, "min_new_tokens": min_tokens}
    for name in ("presence_penalty", "frequency_penalty"):
        asked[name] = value(name, 0.0)
        _check(name, asked[name], is_fine=abs(asked[name]) <= PENALTY_LIMIT, rule="between -2 and 2")
    is_chance_asked = top_k > 1 or top_p > 0 or temperature is not None
    if is_chance_asked and top_k != 1 and (temperature is None or temperature >= COLDEST):
        asked |= {"do_sample": True, "temperature": 1.0 if temperature is None else temperature}
        asked |= {"top_k": top_k} if top_k > 1 else {}
        asked |= {"top_p": top_p} if top_p > 0 else {}
        asked |= {"rng_seed": (value("seed", 0) + number) % 2**64}
    return asked


def _check(name: str, value: Any, *, is_fine: bool, rule: str) -> None:
    if not is_fine:
        raise Refused(f"{name} is {value}; it must be {rule}.")
