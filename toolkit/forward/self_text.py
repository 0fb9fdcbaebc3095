"""Calibration text that the model writes itself, so that no data set is needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BuildError, UsageError
from toolkit.files import written_whole
from toolkit.forward.calibration import tokenizer_of
from toolkit.forward.decoder import Decoder, KVCache
from toolkit.forward.prompts import OPENINGS, QUESTIONS
from toolkit.specs import CalibrationSpec, ModelSpec, Progress
from toolkit.specs.parts import parameters
from toolkit.templating import chat_prompt, chat_template
from toolkit.weights import Layer, Weights

if TYPE_CHECKING:
    import torch

#: --calib self
SELF = "self"
#: Tokens of an opening that start a sample.
OPENING_TOKENS = 8
NOT_FORCED = -1
#: Layers stay in memory between tokens when their float32 bytes are below this share of what is free.
RESIDENT_SHARE = 0.3
STEP = "Write calibration text"


class SelfWriter:
    """Samples text at temperature 1 from the model's own distribution, under one seed."""

    def __init__(self, weights: Weights, spec: ModelSpec) -> None:
        self.weights, self.spec = weights, spec
        self._kept: dict[Any, Any] = {}
        self._is_resident = _float32_bytes(spec) < RESIDENT_SHARE * _available_bytes()

    def write(self, calibration: CalibrationSpec, tokenizer_dir: Path, progress: Progress) -> torch.Tensor:
        """Return int64 [samples, length]: openings and, where the model has a chat template, questions, continued.

        All samples run as one batch from their first token on; a sample takes its own start's token while it has one,
        and what the model says after that.
        """
        import torch

        starts = self._starts(calibration, tokenizer_dir)
        common = min(len(start) for start in starts)
        ids = torch.tensor([start[:common] for start in starts])
        forced = torch.full((len(starts), calibration.length), NOT_FORCED)
        for row, start in enumerate(starts):
            forced[row, : len(start)] = torch.tensor(start)
        generator = torch.Generator().manual_seed(calibration.seed)
        decoder = Decoder(self.spec, max_length=calibration.length, device=str(self.weights.embed(ids).device))
        caches = [KVCache() for _ in range(self.spec.num_layers)]
        fresh = ids
        while ids.shape[1] < calibration.length:
            logits = self._logits(decoder, fresh, caches, start=ids.shape[1] - fresh.shape[1])
            shares = torch.softmax(logits.float().cpu(), dim=-1)
            if not torch.isfinite(shares).all():
                raise BuildError(
                    "The model's logits become NaN or Inf when it writes its calibration text.",
                    hint="Check the weights; --calib FILE names the layer where it begins.",
                )
            sampled = torch.multinomial(shares, 1, generator=generator)
            given = forced[:, ids.shape[1] : ids.shape[1] + 1]
            fresh = torch.where(given == NOT_FORCED, sampled, given)
            ids = torch.cat((ids, fresh), dim=1)
            progress(STEP, ids.shape[1], calibration.length)
        return ids

    def _logits(self, decoder: Decoder, ids: torch.Tensor, caches: list[KVCache], *, start: int) -> torch.Tensor:
        hidden = self.weights.embed(ids)
        for index, cache in enumerate(caches):
            layer = self._piece(index, partial(self._resident_layer, index))
            hidden = decoder.layer(layer, hidden, cache=cache, start=start)
        head = self._piece("head", lambda: self._head().to(hidden.device))
        return decoder.logits(hidden[:, -1], self._piece("norm", self.weights.final_norm), head)

    def _resident_layer(self, index: int) -> Layer:
        """Cast a layer once where it stays; what is read again for each token is cast in blocks as it is used."""
        layer = self.weights.layer(index)
        return layer.as_float32() if self._is_resident else layer

    def _head(self) -> torch.Tensor:
        head = self.weights.head()
        return head.float() if self._is_resident else head

    def _starts(self, calibration: CalibrationSpec, tokenizer_dir: Path) -> list[list[int]]:
        """Return the first tokens of each sample: openings and questions take turns."""
        tokenizer = tokenizer_of(tokenizer_dir)
        openings = [tokenizer.encode(text, add_special_tokens=False).ids[:OPENING_TOKENS] for text in OPENINGS]
        questions = [tokenizer.encode(text, add_special_tokens=False).ids for text in _asked_in_chat(tokenizer_dir)]
        questions = [ids for ids in questions if len(ids) < calibration.length] or openings
        rows = [openings[i // 2 % len(openings)] for i in range(calibration.samples)]
        rows[1::2] = [questions[i % len(questions)] for i in range(len(rows[1::2]))]
        return [row[: calibration.length] for row in rows]

    def _piece(self, key: Any, read: Callable[[], Any]) -> Any:
        if key in self._kept:
            return self._kept[key]
        piece = read()
        if self._is_resident:
            self._kept[key] = piece
        return piece


def _asked_in_chat(tokenizer_dir: Path) -> list[str]:
    """Return the questions in the model's chat template; none where it has none, or one that we cannot run."""
    found = chat_template(tokenizer_dir)
    if found is None:
        return []
    try:
        return [chat_prompt(found[0], [{"role": "user", "content": text}], found[1]) for text in QUESTIONS]
    except UsageError:  # a template for tools or images may refuse plain text; openings are enough then
        return []


def save_ids(path: Path, ids: torch.Tensor) -> None:
    """Keep calibration ids for a conversion that may be interrupted."""
    from safetensors.torch import save_file

    with written_whole(path) as temporary:
        save_file({"ids": ids}, str(temporary))


def load_ids(path: Path) -> torch.Tensor:
    """Return kept calibration ids."""
    from safetensors.torch import load_file

    return load_file(str(path))["ids"]


def _float32_bytes(spec: ModelSpec) -> int:
    return 4 * (parameters(spec) + spec.vocab_size * spec.hidden_size)


def _available_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
