"""Several tokens in one step of the engine: a smaller one proposes them, and the engine takes what it would say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from served import Refused

#: Calls a model: (is it the draft, inputs) → outputs.
Call = Callable[[bool, dict[str, np.ndarray]], dict[str, np.ndarray]]
#: What a draft has no use for.
OF_THE_ANSWER = ("return_log_probs", "return_perf_metrics", "return_num_input_tokens", "return_num_output_tokens")
EXCLUDED = ("stream", "return_context_logits")
ALONE = ("num_return_sequences", "beam_width")


def number_of(asked: dict[str, np.ndarray], *, has_draft: bool) -> int:
    """Return how many tokens are to be proposed at a time, 0 for none; refuse what does not go with it."""
    wanted = int(asked["num_draft_tokens"].max()) if "num_draft_tokens" in asked else 0
    if wanted < 0:
        raise Refused(f"num_draft_tokens is {wanted}; give 1 or more, or leave it out.")
    if not wanted:
        return 0
    if not has_draft:
        raise Refused("num_draft_tokens is not supported: this repository has no draft model.")
    for name in EXCLUDED:
        if name in asked and asked[name].any():
            raise Refused(f"{name} does not go with num_draft_tokens.")
    for name in ALONE:
        if name in asked and asked[name].max() > 1:
            raise Refused(f"{name} {int(asked[name].max())} does not go with num_draft_tokens: one answer at a time.")
    return wanted


class Drafted:
    """One answer in the making."""

    def __init__(self, inputs: dict[str, np.ndarray], per_step: int, *, has_logits: bool) -> None:
        self.inputs, self.per_step, self.has_logits = inputs, per_step, has_logits
        self.prompt = inputs["input_ids"].reshape(-1)
        self.wanted = int(inputs["request_output_len"].max())
        self.end_id = int(inputs["end_id"].max()) if "end_id" in inputs else -1
        self.words = words_in(inputs.get("stop_words_list"))
        self.tokens: list[int] = []
        self.last: dict[str, np.ndarray] = {}

    def make(self, call: Call, goes_on: Callable[[], bool]) -> None:
        """Make the whole answer; each round costs one step of the engine and gives one token or more."""
        while goes_on() and len(self.tokens) < self.wanted and not self.is_ended():
            so_far = self.so_far()
            count = min(self.per_step, self.wanted - len(self.tokens) - 1)
            proposed = self.proposed(call, so_far, count) if count > 0 else {}
            length = proposed["draft_input_ids"].shape[1] if proposed else 0
            self.last = call(False, {**so_far, **proposed, "request_output_len": one(length + 1)})
            new = tokens_of(self.last)
            if not new:  # an end that the engine does not say
                return
            self.tokens += new[: self.wanted - len(self.tokens)]

    def so_far(self) -> dict[str, np.ndarray]:
        """Return the inputs of a call that goes on behind the tokens that are there."""
        text = np.concatenate([self.prompt, np.array(self.tokens, np.int32)]).astype(np.int32).reshape(1, -1)
        fixed = {"input_ids": text, "input_lengths": one(text.shape[1])}
        # Only what is new is of interest, whatever the client wants to see in the end.
        return {**self.inputs, **fixed, "exclude_input_in_output": np.ones((1, 1), bool)}

    def proposed(self, call: Call, so_far: dict[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
        """Return the draft's tokens, with its logits where they are asked for; nothing where it has none."""
        inputs = {name: value for name, value in so_far.items() if name not in OF_THE_ANSWER}
        inputs["request_output_len"] = one(count)
        if self.has_logits:
            inputs["return_generation_logits"] = np.ones((1, 1), bool)
        answer = call(True, inputs)
        tokens = tokens_of(answer)[:count]
        if not tokens:
            return {}
        made = {"draft_input_ids": np.array([tokens], np.int32)}
        if self.has_logits and "generation_logits" in answer:
            made["draft_logits"] = answer["generation_logits"][:1, 0, : len(tokens)]
        return made

    def shown(self, asked: dict[str, np.ndarray]) -> np.ndarray:
        """Return the tokens that the client reads: the answer, behind its prompt where that was asked for."""
        excludes = asked.get("exclude_input_in_output", np.ones(1, bool)).all()
        shown = [*([] if excludes else self.prompt.tolist()), *self.tokens]
        return np.array(shown, np.int32).reshape(1, 1, -1)

    def others(self, wanted: set[str]) -> dict[str, np.ndarray]:
        """Return the other outputs, of the last step where nothing better is known."""
        found = {name: value for name, value in self.last.items() if name in wanted}
        counts = {"num_input_tokens": len(self.prompt), "num_output_tokens": len(self.tokens)}
        return found | {name: one(counts[name]) for name in counts if name in found}

    def is_ended(self) -> bool:
        """Say whether the last token is the end, or the last tokens a stop word."""
        return bool(self.tokens) and (
            self.tokens[-1] == self.end_id or any(self.tokens[-len(word) :] == word for word in self.words)
        )


def tokens_of(answer: dict[str, np.ndarray]) -> list[int]:
    """Return the tokens of an answer with one row and one beam."""
    if not answer:
        return []
    made: list[int] = answer["output_ids"].reshape(-1)[: int(answer["sequence_length"].reshape(-1)[0])].tolist()
    return made


def words_in(words: np.ndarray | None) -> list[list[int]]:
    """Return the words of a tensor that has their tokens in its first row and where each ends in its second."""
    if words is None:
        return []
    tokens, ends = words.reshape(2, -1).tolist()
    starts = [0, *ends]
    return [tokens[start:end] for start, end in zip(starts, ends) if end > start]  # noqa: B905 - one longer on purpose


def one(value: int) -> Any:
    """Return a number as the engine takes it."""
    return np.array([[value]], np.int32)
