"""Which inputs a question fills on a Triton model: what it means, the model's name for it, its bytes."""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.bench.tensors import INPUT_COUNT, NAMES, OUTPUT_COUNT, TEXT, Tensor, packed, packed_text
from toolkit.errors import ServerError
from toolkit.talk.question import Question

#: What a load test never sets, by OpenAI's name.
MORE_NAMES = {
    "temperature": ("temperature", "sampling_param_temperature"),
    "top_p": ("top_p", "sampling_param_top_p"),
    "stop": ("stop_words", "sampling_param_stop"),
    "messages": ("messages",),
}
FINISH_REASON = "finish_reason"
WORDS = {"prompt": "a text", "stop": "stop words"}
HINTS = collections.defaultdict(
    lambda: "Leave the option out for this model.",
    prompt="Give a text-to-text model with --model: ensemble or tensorrt_llm_bls.",
    messages="Build the repository again with this version of trtk, or ask an OpenAI endpoint: --url openai+http://…/v1.",
)


def values(question: Question, inputs: Sequence[str]) -> dict[str, Any]:
    """Return what to send, by the model's own input names; raises ServerError for a model that cannot be asked so."""
    named = {
        meaning: next((name for name in names if name in inputs), None)
        for meaning, names in (NAMES | MORE_NAMES).items()
    }
    wanted: dict[str, Any] = {
        "prompt": question.prompt,
        "max_tokens": question.max_tokens,
        "stream": question.is_streaming,
        "excludes_input": True,
        "wants_output_count": True,
        "wants_input_count": True,
        **question.settings(),
    }
    if question.stop:
        wanted["stop"] = list(question.stop)
    if question.messages:
        wanted["messages"] = json.dumps(list(question.messages), ensure_ascii=False)
    must = [
        "prompt",
        *(["messages"] if question.messages else []),
        *question.settings(),
        *(["stop"] if question.stop else []),
    ]
    for meaning in must:
        if named[meaning] is None:
            raise ServerError(f"{question.model} has no input for {WORDS.get(meaning, meaning)}.", hint=HINTS[meaning])
    return {name: wanted[meaning] for meaning, name in named.items() if name and meaning in wanted}


def outputs(offered: Sequence[str], model: str) -> list[str]:
    """Return the outputs to ask for: one that is not read costs both sides time."""
    if TEXT not in offered:
        raise ServerError(
            f"{model} gives {', '.join(sorted(offered)) or 'nothing'}: there is no {TEXT}.",
            hint="Give a text-to-text model with --model: ensemble or tensorrt_llm_bls.",
        )
    return [name for name in (TEXT, OUTPUT_COUNT, INPUT_COUNT, FINISH_REASON) if name in offered]


def shape(tensor: Tensor, value: object) -> list[int]:
    """Return the shape of one value, or of a list of them in the last dimension."""
    size = len(value) if isinstance(value, list) else 1
    return [1] * (tensor.dims - 1) + [size]


def raw(tensor: Tensor, value: Any) -> bytes:
    """Return a value as the bytes of its tensor."""
    listed = value if isinstance(value, list) else [value]
    return b"".join(packed_text(one) if tensor.datatype == "BYTES" else packed(tensor, one) for one in listed)


def unpacked_text(raw_bytes: bytes) -> str:
    """Return the first string of a BYTES tensor, and an empty one where there is none."""
    size = int.from_bytes(raw_bytes[:4], "little")
    return raw_bytes[4 : 4 + size].decode(errors="replace")


def text_of(event: Mapping[str, Any], name: str) -> str:
    """Return a string output of a JSON answer: one element comes as it is, several as a list."""
    value = event.get(name, "")
    return str(value[0] if isinstance(value, list) and value else value or "")
