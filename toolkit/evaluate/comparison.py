"""A checkpoint and its original side by side, one layer of each in memory."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from toolkit.errors import BuildError
from toolkit.evaluate.distributions import Logits, Scores, compare
from toolkit.forward.decoder import Decoder, apply
from toolkit.models import parts
from toolkit.quant import kv_cache
from toolkit.specs import Evaluation, LayerError, ModelSpec, Progress
from toolkit.weights import Layer, Weights

if TYPE_CHECKING:
    import torch

#: Tokens that go through a layer together: bounds the activations of one pass.
TOKENS_AT_ONCE = 2048
STEP = "Compare layer by layer"


class Comparison:
    """Hidden states of the same tokens in the original and in the checkpoint, carried from layer to layer."""

    def __init__(self, spec: ModelSpec, ids: torch.Tensor, *, kv_cache_algo: str | None = None) -> None:
        self.spec, self.ids, self.kv_cache_algo = spec, ids, kv_cache_algo

    def run(self, base: Weights, other: Weights, progress: Progress) -> Evaluation:
        """Return every figure; raises BuildError when the checkpoint's hidden states are no numbers."""
        total = self.spec.num_layers + 2  # the head costs about as much as two layers
        hidden, bent = base.embed(self.ids), other.embed(self.ids)
        layers = []
        for index in range(self.spec.num_layers):
            progress(STEP, index, total)
            layers.append(self._layer(base.layer(index), other.layer(index), hidden, bent))
        progress(STEP, self.spec.num_layers, total)
        scores = self._scores(base, other, hidden, bent)
        progress(STEP, total, total)
        return Evaluation(
            ppl=_exp(scores.nll / scores.tokens),
            ppl_base=_exp(scores.nll_base / scores.tokens),
            kl=scores.kl / scores.tokens,
            top1=scores.agreements / scores.tokens,
            tokens=scores.tokens,
            layers=tuple(layers),
        )

    def _layer(self, base: Layer, other: Layer, hidden: torch.Tensor, bent: torch.Tensor) -> LayerError:
        """Carry both hidden states through a layer, in place; return its errors."""
        groups = _GroupErrors(self.spec, other)
        length, device = self.ids.shape[1], str(hidden.device)
        left = Decoder(self.spec, max_length=length, device=device, apply=groups.watched)
        stored = kv_cache.rounding_of(self.kv_cache_algo)
        right = Decoder(self.spec, max_length=length, device=device, stored=stored)
        rows = max(1, TOKENS_AT_ONCE // length)
        for start in range(0, len(hidden), rows):
            piece = slice(start, start + rows)
            hidden[piece] = left.layer(base, hidden[piece])
            bent[piece] = right.layer(other, bent[piece])
        error = _relative(hidden, bent)
        if not error < float("inf"):  # also catches NaN
            raise BuildError(
                f"The checkpoint's hidden states become NaN or Inf in layer {base.index}.",
                hint="Quantize the model again; if it stays so, use --dtype bfloat16.",
            )
        return LayerError(layer=base.index, hidden=error, groups=groups.errors, algos=groups.algos)

    def _scores(self, base: Weights, other: Weights, hidden: torch.Tensor, bent: torch.Tensor) -> Scores:
        decoder = Decoder(self.spec, max_length=1, device=str(hidden.device))
        targets = self.ids[:, 1:].reshape(-1).to(hidden.device)

        def logits(weights: Weights, states: torch.Tensor) -> Logits:
            flat = states[:, :-1].reshape(-1, states.shape[-1])
            norm, head = weights.final_norm(), weights.head()

            def of(start: int, stop: int) -> torch.Tensor:
                return decoder.logits(flat, norm, head[start:stop].to(flat.device).float())

            return of

        return compare(logits(base, hidden), logits(other, bent), targets, vocab_size=self.spec.vocab_size)


class _GroupErrors:
    """Runs each linear of the original and, on the same input, the checkpoint's; adds up what differs by group."""

    def __init__(self, spec: ModelSpec, other: Layer) -> None:
        self.other = other
        groups = parts.groups(spec, other.index)
        self.algos = {group: other.linears[members[0]].algo for group, members in groups.items()}
        self._group_of = {part: group for group, members in groups.items() for part in members}
        self._sums = dict.fromkeys(groups, (0.0, 0.0))  # of squares: of the difference, of the output
        self._tokens = dict.fromkeys(self._group_of, 0)

    def watched(self, layer: Layer, part: str, inputs: torch.Tensor) -> torch.Tensor:
        """Return what the original's part makes of its inputs."""
        made = apply(layer, part, inputs)
        if self._tokens[part] < TOKENS_AT_ONCE:  # enough for a share; all would double the work
            self._tokens[part] += made.numel() // made.shape[-1]
            change = apply(self.other, part, inputs).sub_(made)
            group = self._group_of[part]
            difference, total = self._sums[group]
            self._sums[group] = (difference + float(change.square().sum()), total + float(made.square().sum()))
        return made

    @property
    def errors(self) -> dict[str, float]:
        return {group: _root_share(difference, total) for group, (difference, total) in self._sums.items()}


def _relative(expected: torch.Tensor, found: torch.Tensor) -> float:
    return _root_share(float((found - expected).square().sum()), float(expected.square().sum()))


def _root_share(difference: float, total: float) -> float:
    return math.sqrt(difference / total) if total else difference


def _exp(value: float) -> float:
    """Return e**value; infinity where a float cannot hold it."""
    return math.exp(value) if value < 700 else math.inf
