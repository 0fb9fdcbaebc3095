"""Which tensors a request fills: what it means, the names servers use for it, and its bytes on the wire."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.errors import ServerError
from toolkit.specs import LoadProfile

#: What a tensor means → its names, ours first: the engine repository's, then the LLM API repository's.
NAMES = {
    "prompt": ("text_input",),
    "max_tokens": ("max_tokens", "sampling_param_max_tokens"),
    "min_tokens": ("min_tokens", "sampling_param_min_tokens"),
    "end_id": ("end_id",),
    "stream": ("stream", "streaming"),
    "top_k": ("top_k", "sampling_param_top_k"),
    "seed": ("seed", "sampling_param_seed"),
    "wants_output_count": ("return_num_output_tokens",),
    "wants_input_count": ("return_num_input_tokens",),
    "excludes_input": ("exclude_input_in_output", "sampling_param_exclude_input_from_output"),
}
TEXT, OUTPUT_COUNT, INPUT_COUNT = "text_output", "num_output_tokens", "num_input_tokens"
FORMATS = {"BOOL": "<?", "INT32": "<i", "INT64": "<q", "UINT32": "<I", "UINT64": "<Q", "FP32": "<f"}

#: No vocabulary has it, so generation never stops early.
NO_TOKEN = -1


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One input or output as the server describes it."""

    name: str
    datatype: str
    dims: int


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The inputs to fill, by meaning, and the outputs to ask for."""

    inputs: Mapping[str, Tensor]
    outputs: tuple[str, ...]

    @property
    def has_eos_control(self) -> bool:
        """Whether the answer's length can be fixed."""
        return "min_tokens" in self.inputs or "end_id" in self.inputs

    def values(self, profile: LoadProfile, *, max_tokens: int, seed: int) -> dict[str, int | bool]:
        """Return everything but the prompt, by tensor name."""
        wanted: dict[str, int | bool] = {
            "max_tokens": max_tokens,
            "stream": profile.is_streaming,
            "top_k": 1,
            "seed": seed,
            "wants_output_count": True,
            "wants_input_count": True,
            "excludes_input": True,
        }
        if profile.is_eos_ignored and "min_tokens" in self.inputs:
            wanted["min_tokens"] = max_tokens
        elif profile.is_eos_ignored:
            wanted["end_id"] = NO_TOKEN
        return {self.inputs[meaning].name: value for meaning, value in wanted.items() if meaning in self.inputs}


def layout_of(model: str, inputs: list[Tensor], outputs: list[str]) -> Layout:
    """Match a model's own tensors with what a load test sends and reads."""
    by_name = {tensor.name: tensor for tensor in inputs}
    found = {meaning: by_name[name] for meaning, names in NAMES.items() for name in names if name in by_name}
    if "prompt" not in found or TEXT not in outputs:
        raise ServerError(
            f"{model} takes {', '.join(sorted(by_name)) or 'nothing'} and gives "
            f"{', '.join(sorted(outputs)) or 'nothing'}: a load test needs text_input and text_output.",
            hint="Give a text-to-text model with --model: ensemble or tensorrt_llm_bls.",
        )
    # Only what is read travels: other outputs cost both sides time.
    asked = [TEXT]
    asked += [OUTPUT_COUNT] if OUTPUT_COUNT in outputs and "wants_output_count" in found else []
    asked += [INPUT_COUNT] if INPUT_COUNT in outputs and "wants_input_count" in found else []
    return Layout(inputs=found, outputs=tuple(asked))


def packed(tensor: Tensor, value: float) -> bytes:
    """Return one number as the bytes of a one-element tensor."""
    return struct.pack(FORMATS[tensor.datatype], value)


def packed_text(text: str) -> bytes:
    """Return one string as the bytes of a one-element BYTES tensor."""
    raw = text.encode()
    return len(raw).to_bytes(4, "little") + raw
