"""Calibration text that the model writes itself, so that no data set is needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from toolkit.convert.decoder import Decoder, KVCache
from toolkit.convert.layer import Layer
from toolkit.convert.prompts import OPENINGS
from toolkit.files import written_whole
from toolkit.specs import CalibrationSpec, ModelSpec, Progress

if TYPE_CHECKING:
    import torch

#: --calib self
SELF = "self"
#: Tokens of an opening that start a sample; all samples start equally long so that they run as one batch.
OPENING_TOKENS = 6
#: Layers stay in memory between tokens when their float32 bytes are below this share of what is free.
RESIDENT_SHARE = 0.3
STEP = "Write calibration text"


class Weights(Protocol):
    """Where the writer gets a model from, piece by piece."""

    def load_layer(self, index: int) -> Layer:
        """Return one layer."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return hidden states of ids."""

    def final_norm(self) -> torch.Tensor:
        """Return the final norm's weight."""

    def head(self) -> torch.Tensor:
        """Return the float32 output matrix [vocab, hidden]."""


class SelfWriter:
    """Samples text at temperature 1 from the model's own distribution, under one seed."""

    def __init__(self, weights: Weights, spec: ModelSpec) -> None:
        self.weights, self.spec = weights, spec
        self._kept: dict[Any, Any] = {}
        self._is_resident = _float32_bytes(spec) < RESIDENT_SHARE * _available_bytes()

    def write(self, calibration: CalibrationSpec, tokenizer_json: Path, progress: Progress) -> torch.Tensor:
        """Return int64 [samples, length]; every sample begins with the first tokens of a built-in opening."""
        import torch

        ids = self._openings(calibration.samples, tokenizer_json)
        generator = torch.Generator().manual_seed(calibration.seed)
        decoder = Decoder(self.spec, max_length=calibration.length)
        caches = [KVCache() for _ in range(self.spec.num_layers)]
        norm = self.weights.final_norm()
        fresh = ids
        while ids.shape[1] < calibration.length:
            hidden = self.weights.embed(fresh)
            for index, cache in enumerate(caches):
                start = ids.shape[1] - fresh.shape[1]
                layer = self._piece(index, partial(self.weights.load_layer, index))
                hidden = decoder.layer(layer, hidden, cache=cache, start=start)
            logits = decoder.norm(hidden[:, -1], norm) @ self._piece("head", self.weights.head).T
            fresh = torch.multinomial(torch.softmax(logits.float().cpu(), dim=-1), 1, generator=generator)
            ids = torch.cat((ids, fresh), dim=1)
            progress(STEP, ids.shape[1], calibration.length)
        return ids[:, : calibration.length]

    def _openings(self, samples: int, tokenizer_json: Path) -> torch.Tensor:
        import torch
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(tokenizer_json))
        starts = [tokenizer.encode(text, add_special_tokens=False).ids[:OPENING_TOKENS] for text in OPENINGS]
        shortest = min(len(start) for start in starts)
        return torch.tensor([starts[i % len(starts)][:shortest] for i in range(samples)])

    def _piece(self, key: Any, read: Callable[[], Any]) -> Any:
        if key in self._kept:
            return self._kept[key]
        piece = read()
        if self._is_resident:
            self._kept[key] = piece
        return piece


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
    attention = spec.hidden_size * spec.head_dim * (2 * spec.num_heads + 2 * spec.num_kv_heads)
    layers = spec.num_layers * (attention + 3 * spec.hidden_size * spec.intermediate_size)
    return 4 * (layers + spec.vocab_size * spec.hidden_size)


def _available_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
