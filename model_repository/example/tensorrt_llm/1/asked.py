"""What a request asks of the CPU engine: read, checked, and refused in a sentence where the engine cannot do it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from served import Refused

#: Inputs that mean something to TensorRT-LLM and nothing here, with the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "num_return_sequences": (0, 1),
    "beam_width": (0, 1),
    "runtime_top_p_min": (0,),
    "runtime_top_p_decay": (0, 1),
    "runtime_top_p_reset_ids": (-1, 0),
    "return_log_probs": (False,),
    "return_context_logits": (False,),
    "return_generation_logits": (False,),
    "prompt_vocab_size": (0,),
}
#: Inputs that are refused when they carry anything at all.
ABSENT = (
    "encoder_input_features", "encoder_output_lengths", "draft_input_ids", "draft_logits", "draft_acceptance_threshold",
    "cross_attention_mask", "skip_cross_attn_blocks", "embedding_bias", "prompt_embedding_table",
    "prompt_table_extra_ids", "mrope_rotary_cos_sin", "mrope_position_deltas", "lora_task_id", "lora_weights",
    "lora_config", "context_phase_params", "retention_token_range_starts", "retention_token_range_ends",
    "retention_token_range_priorities", "retention_token_range_durations_ms", "retention_decode_priority",
    "retention_decode_duration_ms", "guided_decoding_guide_type", "guided_decoding_guide", "lookahead_window_size",
    "lookahead_ngram_size", "lookahead_verification_set_size",
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What the engine was set up for."""

    max_seq_len: int
    excludes_input: bool


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

    @property
    def stop_token_ids(self) -> set[int]:
        """Single tokens that end the text: the engine watches for these itself."""
        ends = {word[0] for word in self.stop_words if len(word) == 1}
        return ends | ({self.end_id} if self.end_id >= 0 else set())


def rows_of(tensors: dict[str, np.ndarray], limits: Limits) -> list[Asked]:
    """Return one Asked for each row of a request."""
    refuse_unsupported(tensors)
    if "input_ids" not in tensors:
        raise Refused("input_ids is missing.")
    tokens = tensors["input_ids"].reshape(-1, tensors["input_ids"].shape[-1])
    return [_row(tensors, row, tokens[row], limits) for row in range(len(tokens))]


def refuse_unsupported(tensors: dict[str, np.ndarray]) -> None:
    """Say which input the CPU engine cannot honour, rather than pass over it."""
    for name in ABSENT:
        if name in tensors and tensors[name].size:
            raise Refused(f"{name} is not supported by the CPU engine; leave it out.")
    for name, neutral in NEUTRAL.items():
        if name in tensors and any(value not in neutral for value in tensors[name].reshape(-1).tolist()):
            value = tensors[name].reshape(-1).tolist()[0]
            raise Refused(f"{name} = {value} is not supported by the CPU engine; it can do {neutral[-1]}.")
    if "decoder_input_ids" in tensors and tensors["decoder_input_ids"].shape[-1] > 1:
        raise Refused("decoder_input_ids is for encoder-decoder models; this one is decoder-only.")
    for table in _tables(tensors, "bad_words_list"):
        if words_of(table):
            raise Refused("bad_words is not supported by the CPU engine; leave it out.")


def _tables(tensors: dict[str, np.ndarray], name: str) -> list[np.ndarray]:
    found = tensors.get(name)
    return [] if found is None or not found.size else list(found.reshape(-1, *found.shape[-2:]))


def words_of(table: np.ndarray) -> list[list[int]]:
    """Read a word list: tokens above, the words' ends below, padded with -1."""
    words, start = [], 0
    for end in table[1].tolist():
        if end <= start:
            break
        words.append(table[0, start:end].tolist())
        start = end
    return words


def _row(tensors: dict[str, np.ndarray], row: int, tokens: np.ndarray, limits: Limits) -> Asked:
    def value(name: str, default: Any) -> Any:
        found = tensors.get(name)
        return default if found is None else found.reshape(-1)[row].item()

    length, max_tokens = value("input_lengths", 0), value("request_output_len", 0)
    if not 0 < length <= len(tokens):
        raise Refused(f"input_lengths is {length} for {len(tokens)} tokens in input_ids.")
    if max_tokens <= 0:
        raise Refused(f"request_output_len is {max_tokens}; it must be 1 or more.")
    if length + max_tokens > limits.max_seq_len:
        raise Refused(
            f"The prompt has {length} tokens and {max_tokens} more are asked for; together they may be"
            f" {limits.max_seq_len}."
        )
    stop_words = _tables(tensors, "stop_words_list")
    return Asked(
        prompt=tokens[:length].astype(np.int64),
        max_tokens=max_tokens,
        end_id=value("end_id", -1),
        stop_words=words_of(stop_words[row]) if stop_words else [],
        is_streaming=value("streaming", False),
        includes_input=not value("exclude_input_in_output", limits.excludes_input),
        sampling=sampling_of(value, max_tokens),
    )


def sampling_of(value: Any, max_tokens: int) -> dict[str, Any]:
    """Return what GenerationConfig is told; greedy unless top_k, top_p or a temperature asks for chance."""
    top_k, top_p, temperature = value("runtime_top_k", 0), value("runtime_top_p", 0.0), value("temperature", None)
    penalty, min_tokens = value("repetition_penalty", 1.0), value("min_tokens", 0)
    _check("top_k", top_k, is_fine=top_k >= 0, rule="0 or more")
    _check("top_p", top_p, is_fine=0 <= top_p <= 1, rule="between 0 and 1")
    _check("temperature", temperature, is_fine=(temperature or 0) >= 0, rule="0 or more")
    _check("repetition_penalty", penalty, is_fine=penalty > 0, rule="above 0")
    _check("min_tokens", min_tokens, is_fine=0 <= min_tokens <= max_tokens, rule=f"between 0 and {max_tokens}")
    asked = {
        "repetition_penalty": penalty,
        "presence_penalty": value("presence_penalty", 0.0),
        "frequency_penalty": value("frequency_penalty", 0.0),
        "min_new_tokens": min_tokens,
    }
    is_chance_asked = top_k > 1 or top_p > 0 or temperature is not None
    if is_chance_asked and top_k != 1 and temperature != 0:
        asked |= {"do_sample": True, "temperature": 1.0 if temperature is None else temperature}
        asked |= {"top_k": top_k} if top_k > 1 else {}
        asked |= {"top_p": top_p} if top_p > 0 else {}
        asked |= {"rng_seed": value("seed", 0)}
    return asked


def _check(name: str, value: Any, *, is_fine: bool, rule: str) -> None:
    if not is_fine:
        raise Refused(f"{name} is {value}; it must be {rule}.")
