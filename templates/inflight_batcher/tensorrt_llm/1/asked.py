"""What a request asks of the CPU engine: read, checked, and refused in a sentence where the engine cannot do it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from sampling import sampling_of
from served import Refused, text_of

#: Inputs that mean something to TensorRT-LLM and nothing here, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "beam_width": (0, 1),
    "runtime_top_p_min": (0,),
    "runtime_top_p_decay": (0, 1),
    "runtime_top_p_reset_ids": (-1, 0),
    "return_context_logits": (False,),
    "return_generation_logits": (False,),
    "retention_decode_priority": (-1, 0),
    "retention_decode_duration_ms": (-1, 0),
}
#: Inputs that are refused when they carry anything but zeros.
ABSENT = (
    "encoder_input_features", "encoder_output_lengths", "draft_input_ids", "draft_logits", "draft_acceptance_threshold",
    "cross_attention_mask", "skip_cross_attn_blocks", "embedding_bias", "prompt_embedding_table",
    "prompt_table_extra_ids", "prompt_vocab_size", "mrope_rotary_cos_sin", "mrope_position_deltas", "lora_task_id",
    "lora_weights", "lora_config", "context_phase_params", "retention_token_range_starts", "retention_token_range_ends",
    "retention_token_range_priorities", "retention_token_range_durations_ms", "lookahead_window_size",
    "lookahead_ngram_size", "lookahead_verification_set_size",
)  # fmt: skip
#: As end_id: nothing ends the text early.
NO_END = -1
#: Words of guided_decoding_guide_type.
GUIDES = ("json", "json_schema", "regex", "ebnf_grammar")


@dataclass(frozen=True)
class Limits:
    """What the engine was set up for."""

    max_seq_len: int
    excludes_input: bool
    max_sequences: int = 1
    vocabulary: int = 2**31  # tokens that the model knows


@dataclass(frozen=True)
class Asked:
    """One sequence to generate."""

    prompt: np.ndarray  # int64, without padding
    max_tokens: int
    end_id: int  # -1: nothing ends the text early
    stop_words: list[list[int]]
    is_streaming: bool
    includes_input: bool
    sampling: dict[str, Any] = field(default_factory=dict)  # attributes of openvino_genai.GenerationConfig
    bad_words: list[list[int]] = field(default_factory=list)
    has_log_probs: bool = False
    guide: tuple[str, str] | None = None  # its type, and what the text must follow
    batch_index: int = 0
    sequence_index: int = 0


def rows_of(tensors: dict[str, np.ndarray], limits: Limits) -> list[Asked]:
    """Return one Asked for each sequence of each row of a request."""
    refuse_unsupported(tensors)
    if "input_ids" not in tensors:
        raise Refused("input_ids is missing.")
    tokens = tensors["input_ids"].reshape(-1, tensors["input_ids"].shape[-1])
    return [
        _sequence(tensors, row, number, limits)
        for row in range(len(tokens))
        for number in range(_sequences(tensors, row, limits))
    ]


def refuse_unsupported(tensors: dict[str, np.ndarray]) -> None:
    """Say which input the CPU engine cannot honour, rather than pass over it."""
    for name in ABSENT:
        if name in tensors and tensors[name].size and (tensors[name] != 0).any():
            raise Refused(f"{name} is not supported by the CPU engine; leave it out.")
    for name, neutral in NEUTRAL.items():
        if name in tensors and any(value not in neutral for value in tensors[name].reshape(-1).tolist()):
            value = tensors[name].reshape(-1).tolist()[0]
            raise Refused(f"{name} = {value} is not supported by the CPU engine; it can do {neutral[-1]}.")
    if "decoder_input_ids" in tensors and tensors["decoder_input_ids"].shape[-1] > 1:
        raise Refused("decoder_input_ids is for encoder-decoder models; this one is decoder-only.")


def words_of(tensors: dict[str, np.ndarray], name: str, row: int) -> list[list[int]]:
    """Read a row's word list: tokens above, the words' ends below, padded with -1."""
    found = tensors.get(name)
    if found is None or not found.size:
        return []
    table = found.reshape(-1, *found.shape[-2:])[row]
    words, start = [], 0
    for end in table[1].tolist():
        if end <= start:
            break
        words.append(table[0, start:end].tolist())
        start = end
    return words


def _sequences(tensors: dict[str, np.ndarray], row: int, limits: Limits) -> int:
    count = int(_value(tensors, "num_return_sequences", row, 1))
    if not 1 <= count <= limits.max_sequences:
        raise Refused(f"num_return_sequences is {count}; it may be 1 to {limits.max_sequences}.")
    return count


def _value(tensors: dict[str, np.ndarray], name: str, row: int, default: Any) -> Any:
    found = tensors.get(name)
    return default if found is None or not found.size else found.reshape(-1)[row].item()


def _sequence(tensors: dict[str, np.ndarray], row: int, number: int, limits: Limits) -> Asked:
    def value(name: str, default: Any) -> Any:
        return _value(tensors, name, row, default)

    tokens = tensors["input_ids"].reshape(-1, tensors["input_ids"].shape[-1])[row]
    length, max_tokens = value("input_lengths", 0), value("request_output_len", 0)
    _check_lengths(length, max_tokens, len(tokens), limits)
    stop_words, bad_words = (words_of(tensors, name, row) for name in ("stop_words_list", "bad_words_list"))
    guide, end_id = guide_of(tensors, row), value("end_id", -1)
    _check_tokens("input_ids", tokens[:length].tolist(), limits)
    _check_tokens("stop_words_list", [token for word in stop_words for token in word], limits)
    _check_tokens("bad_words_list", [token for word in bad_words for token in word], limits)
    _check_tokens("end_id", [end_id] if end_id != NO_END else [], limits)
    if bad_words and guide:
        raise Refused("bad_words and guided decoding cannot be used together; leave one out.")
    return Asked(
        prompt=tokens[:length].astype(np.int64),
        max_tokens=max_tokens,
        end_id=end_id,
        stop_words=stop_words,
        is_streaming=value("streaming", False),
        includes_input=not value("exclude_input_in_output", limits.excludes_input),
        sampling=sampling_of(value, max_tokens, number),
        bad_words=bad_words,
        has_log_probs=value("return_log_probs", False),
        guide=guide,
        batch_index=row,
        sequence_index=number,
    )


def _check_lengths(length: int, max_tokens: int, given: int, limits: Limits) -> None:
    if not 0 < length <= given:
        raise Refused(f"input_lengths is {length} for {given} tokens in input_ids.")
    if max_tokens <= 0:
        raise Refused(f"request_output_len is {max_tokens}; it must be 1 or more.")
    if length + max_tokens > limits.max_seq_len:
        raise Refused(
            f"The prompt has {length} tokens and {max_tokens} more are asked for; together they may be"
            f" {limits.max_seq_len}."
        )


def _check_tokens(name: str, tokens: list[int], limits: Limits) -> None:
    """Refuse what is no token: the engine reads and writes at those places without looking."""
    wrong = next((token for token in tokens if not 0 <= token < limits.vocabulary), None)
    if wrong is not None:
        raise Refused(f"{name} has the token {wrong}; this model's are 0 to {limits.vocabulary - 1}.")


def guide_of(tensors: dict[str, np.ndarray], row: int) -> tuple[str, str] | None:
    """Return what the text must follow; None where nothing is asked for."""

    def text(name: str) -> str:
        found = tensors.get(name)
        return "" if found is None or not found.size else text_of(found.reshape(-1)[row], name)

    kind, guide = text("guided_decoding_guide_type"), text("guided_decoding_guide")
    if not kind and not guide:
        return None
    if kind not in GUIDES:
        raise Refused(f"guided_decoding_guide_type is {kind!r}; it must be one of {', '.join(GUIDES)}.")
    if not guide and kind != "json":
        raise Refused(f"guided_decoding_guide is empty, and {kind} needs one.")
    return kind, guide
