"""A request of the engine flow's ensemble in the LLM API's words, and its answer in the ensemble's tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from served import Refused

#: Ours → SamplingParams', where the value goes over as it is.
SAMPLING = {
    "max_tokens": "max_tokens",
    "end_id": "end_id",
    "pad_id": "pad_id",
    "top_k": "top_k",
    "top_p": "top_p",
    "temperature": "temperature",
    "length_penalty": "length_penalty",
    "repetition_penalty": "repetition_penalty",
    "min_tokens": "min_tokens",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
}
#: As max_tokens: no limit but the context, which the LLM API calls None.
AS_MANY_AS_FIT = 2**31 - 1
WORDS = {"stop_words": "stop", "bad_words": "bad"}
#: Inputs that the LLM API has no counterpart for, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_return_sequences": (0, 1),
    "beam_width": (0, 1),
    "return_log_probs": (False,),
    "return_context_logits": (False,),
    "return_generation_logits": (False,),
    "prompt_vocab_size": (0,),
}
#: Inputs that are refused when they carry anything at all.
ABSENT = (
    "decoder_text_input", "prompt_embedding_table", "prompt_table_extra_id", "embedding_bias_words",
    "embedding_bias_weights", "lora_weights", "lora_config", "guided_decoding_guide_type", "guided_decoding_guide",
)  # fmt: skip
#: An answer has every output that its client named: what the LLM API has no value for is zero.
SHAPES = {
    "cum_log_probs": ((1, 1), np.float32),
    "output_log_probs": ((1, 1, 1), np.float32),
    "context_logits": ((1, 1, 1), np.float32),
    "generation_logits": ((1, 1, 1, 1), np.float32),
    "acceptance_rate": ((1, 1), np.float32),
    **dict.fromkeys(("batch_index", "sequence_index"), ((1, 1), np.int32)),
    **dict.fromkeys(("total_accepted_draft_tokens", "total_draft_tokens"), ((1, 1), np.int32)),
    **{f"kv_cache_{what}_blocks": ((1, 1), np.int32) for what in ("alloc_new", "reused", "alloc_total")},
    **{f"{what}_time_ns": ((1, 1), np.int64) for what in ("arrival", "first_scheduled", "first_token", "last_token")},
}


@dataclass(frozen=True)
class Asked:
    """One text to go on with."""

    text: str
    is_streaming: bool
    includes_input: bool
    counts: frozenset[str]  # of num_input_tokens and num_output_tokens, which are wanted
    adapter: int = 0  # of those in model.yaml, counted from 1; 0: none
    sampling: dict[str, Any] = field(default_factory=dict)


def asked_of(tensors: dict[str, np.ndarray]) -> Asked:
    """Read a request; raises Refused for what the LLM API cannot do."""
    texts = tensors["text_input"].reshape(-1)
    if texts.size != 1:
        raise Refused(f"text_input holds {texts.size} texts; send one in each request.")
    refuse_unsupported(tensors)

    def flag(name: str, default: bool) -> bool:
        return bool(tensors[name].reshape(-1)[0]) if name in tensors else default

    sampling = {theirs: tensors[ours].reshape(-1)[0].item() for ours, theirs in SAMPLING.items() if ours in tensors}
    if sampling.get("max_tokens", 0) < 1:
        raise Refused(f"max_tokens is {sampling.get('max_tokens')}; it must be 1 or more.")
    if sampling["max_tokens"] == AS_MANY_AS_FIT:
        sampling["max_tokens"] = None
    for ours, theirs in WORDS.items():
        words = [word.decode() for word in tensors[ours].reshape(-1) if word] if ours in tensors else []
        sampling |= {theirs: words} if words else {}
    return Asked(
        text=texts[0].decode(),
        is_streaming=flag("stream", False),
        includes_input=not flag("exclude_input_in_output", True),
        adapter=int(tensors["lora_task_id"].reshape(-1)[0]) if "lora_task_id" in tensors else 0,
        counts=frozenset(name for name in ("num_input_tokens", "num_output_tokens") if flag(f"return_{name}", False)),
        sampling=greedy(sampling),
    )


def greedy(sampling: dict[str, Any]) -> dict[str, Any]:
    """Leave chance out unless it is asked for, as the engine flow does: there an absent top_k means the best token."""
    is_chance_asked = sampling.get("top_k", 0) > 1 or sampling.get("top_p", 0.0) > 0 or "temperature" in sampling
    if not is_chance_asked or sampling.get("temperature") == 0:
        rest = {name: value for name, value in sampling.items() if name not in {"temperature", "top_p"}}
        return {**rest, "top_k": 1}
    return {name: value for name, value in sampling.items() if (name, value) not in {("top_k", 0), ("top_p", 0.0)}}


def refuse_unsupported(tensors: dict[str, np.ndarray]) -> None:
    """Say which input the LLM API cannot honour, rather than pass over it."""
    for name in ABSENT:
        if name in tensors and tensors[name].size and any(tensors[name].reshape(-1).tolist()):
            raise Refused(f"{name} is not supported by the LLM API's repository; leave it out.")
    for name, neutral in NEUTRAL.items():
        if name in tensors and any(value not in neutral for value in tensors[name].reshape(-1).tolist()):
            value = tensors[name].reshape(-1).tolist()[0]
            raise Refused(f"{name} = {value} is not supported by the LLM API's repository; it can do {neutral[-1]}.")


def outputs_of(result: Any, text: str, asked: Asked, wanted: set[str]) -> list[Any]:
    """Return the tensors of one answer."""
    counts = {"num_input_tokens": len(result.prompt_token_ids), "num_output_tokens": len(result.outputs[0].token_ids)}
    made = [pb_utils.Tensor("text_output", np.array([[text.encode()]], np.object_))]
    for name in sorted(wanted & counts.keys()):
        count = counts[name] if name in asked.counts else 0
        made.append(pb_utils.Tensor(name, np.array([[count]], np.int32)))
    return made + [pb_utils.Tensor(name, np.zeros(*SHAPES[name])) for name in sorted(wanted & SHAPES.keys())]
