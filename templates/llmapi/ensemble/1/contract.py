"""A request of the engine flow's ensemble in the LLM API's words, and its answer in the ensemble's tensors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from chat import Chat
from served import Refused, text_of

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
MOST_WORDS = 256
RANGES = {"top_k": (0, 2**31 - 1), "top_p": (0, 1), "temperature": (0, 1e4), "min_tokens": (0, 2**31 - 1)}
#: guided_decoding_guide_type → attribute of GuidedDecodingParams.
GUIDES = {"json": "json_object", "json_schema": "json", "regex": "regex", "ebnf_grammar": "grammar"}
#: Inputs that the LLM API has no counterpart for, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "beam_width": (0, 1),
    "return_context_logits": (False,),
    "return_generation_logits": (False,),
    "prompt_vocab_size": (0,),
}
#: Inputs that are refused when they carry anything at all.
ABSENT = (
    "decoder_text_input", "prompt_embedding_table", "prompt_table_extra_id", "embedding_bias_words",
    "embedding_bias_weights", "lora_weights", "lora_config",
)  # fmt: skip
#: An answer has every output that its client named: what the LLM API has no value for is zero.
SHAPES = {
    "context_logits": ((1, 1, 1), np.float32),
    "generation_logits": ((1, 1, 1, 1), np.float32),
    "acceptance_rate": ((1, 1), np.float32),
    "batch_index": ((1, 1), np.int32),
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
    guide: tuple[str, str] | None = None  # an attribute of GuidedDecodingParams and its value
    has_log_probs: bool = False
    sampling: dict[str, Any] = field(default_factory=dict)


def asked_of(tensors: dict[str, np.ndarray], chat: Chat | None) -> Asked:
    """Read a request; raises Refused for what the LLM API cannot do."""
    texts = tensors["text_input"].reshape(-1)
    if texts.size != 1:
        raise Refused(f"text_input holds {texts.size} texts; send one in each request.")
    refuse_unsupported(tensors)

    def flag(name: str, default: bool) -> bool:
        return bool(_first(tensors, name, default))

    text, is_chat = prompt_of(tensors, chat)
    has_log_probs = flag("return_log_probs", False)
    return Asked(
        text=text,
        is_streaming=flag("stream", False),
        includes_input=not flag("exclude_input_in_output", True),
        adapter=int(_first(tensors, "lora_task_id", 0)),
        counts=frozenset(name for name in ("num_input_tokens", "num_output_tokens") if flag(f"return_{name}", False)),
        guide=guide_of(tensors),
        has_log_probs=has_log_probs,
        sampling=sampling_of(tensors)
        | ({"add_special_tokens": False} if is_chat else {})  # its template writes them
        | ({"logprobs": 1} if has_log_probs else {}),
    )


def _first(tensors: dict[str, np.ndarray], name: str, default: Any) -> Any:
    return tensors[name].reshape(-1)[0].item() if name in tensors and tensors[name].size else default


def prompt_of(tensors: dict[str, np.ndarray], chat: Chat | None) -> tuple[str, bool]:
    """Return the prompt, and whether a chat's messages made it."""
    text = text_of(tensors["text_input"].reshape(-1)[0], "text_input")
    messages = text_of(tensors["messages"].reshape(-1)[0], "messages") if "messages" in tensors else ""
    if text and messages:
        raise Refused("text_input and messages are both given; leave text_input empty to send messages.")
    if not messages:
        if not text:
            raise Refused("text_input is empty; there is nothing to continue.")
        return text, False
    if chat is None:
        raise Refused("This model has no chat template; send text_input.")
    return chat.text(messages), True


def sampling_of(tensors: dict[str, np.ndarray]) -> dict[str, Any]:
    """Return the arguments of SamplingParams."""
    sampling = {theirs: _first(tensors, ours, None) for ours, theirs in SAMPLING.items() if ours in tensors}
    _check(sampling)
    if sampling["max_tokens"] == AS_MANY_AS_FIT:
        sampling["max_tokens"] = None
    for ours, theirs in WORDS.items():
        words = [text_of(word, ours) for word in tensors[ours].reshape(-1) if word] if ours in tensors else []
        if len(words) > MOST_WORDS:
            raise Refused(f"{ours} has {len(words)} words; it may have {MOST_WORDS}.")
        sampling |= {theirs: words} if words else {}
    made = greedy(sampling)
    count = int(_first(tensors, "num_return_sequences", 1))
    if count < 1:
        raise Refused(f"num_return_sequences is {count}; it must be 1 or more.")
    if count > 1 and made.get("top_k") == 1:
        raise Refused(f"num_return_sequences is {count}; without a temperature, top_k or top_p all would be the same.")
    return made | ({"n": count} if count > 1 else {})


def _check(sampling: dict[str, Any]) -> None:
    if sampling.get("max_tokens", 0) < 1:
        raise Refused(f"max_tokens is {sampling.get('max_tokens')}; it must be 1 or more.")
    for name, value in sampling.items():
        if not np.isfinite(value):
            raise Refused(f"{name} is {value}; it must be a number.")
    for name, (low, high) in RANGES.items():
        if name in sampling and not low <= sampling[name] <= high:
            raise Refused(f"{name} is {sampling[name]}; it must be from {low:g} to {high:g}.")


def guide_of(tensors: dict[str, np.ndarray]) -> tuple[str, str] | None:
    """Return what the text must follow, in GuidedDecodingParams' words."""
    kind, guide = (
        text_of(tensors[name].reshape(-1)[0], name) if name in tensors and tensors[name].size else ""
        for name in ("guided_decoding_guide_type", "guided_decoding_guide")
    )
    if not kind and not guide:
        return None
    if kind not in GUIDES:
        raise Refused(f"guided_decoding_guide_type is {kind!r}; it must be one of {', '.join(GUIDES)}.")
    return GUIDES[kind], guide


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


def outputs_of(result: Any, output: Any, text: str, asked: Asked, *, wanted: set[str], sent: int) -> list[Any]:
    """Return the tensors of one message: TEXT of an output of whose tokens SENT went before."""
    numbers = {
        "num_input_tokens": len(result.prompt_token_ids) if "num_input_tokens" in asked.counts else 0,
        "num_output_tokens": len(output.token_ids) if "num_output_tokens" in asked.counts else 0,
        "sequence_index": output.index,
    }
    made = [pb_utils.Tensor("text_output", np.array([[text.encode()]], np.object_))]
    made += [pb_utils.Tensor(name, np.array([[numbers[name]]], np.int32)) for name in sorted(wanted & numbers.keys())]
    if "finish_reason" in wanted:
        reason = (output.finish_reason or "").encode()
        made.append(pb_utils.Tensor("finish_reason", np.array([[reason]], np.object_)))
    log_probs = log_probs_of(output) if asked.has_log_probs else [0.0]
    if "cum_log_probs" in wanted:
        made.append(pb_utils.Tensor("cum_log_probs", np.array([[sum(log_probs)]], np.float32)))
    if "output_log_probs" in wanted:
        new = log_probs[sent:] if asked.has_log_probs else log_probs
        made.append(pb_utils.Tensor("output_log_probs", np.array([[new]], np.float32)))
    return made + [pb_utils.Tensor(name, np.zeros(*SHAPES[name])) for name in sorted(wanted & SHAPES.keys())]


def log_probs_of(output: Any) -> list[float]:
    """Return each token's logarithm of probability; the LLM API gives numbers, or tables of the best tokens."""
    pairs = zip(output.token_ids, output.logprobs or (), strict=False)
    return [float(each[token].logprob if isinstance(each, dict) else each) for token, each in pairs]
