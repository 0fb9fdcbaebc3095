"""What a change of a group of linears costs: an estimate of the KL divergence from one backward pass.

A small change d of a linear's output changes the model's distribution by KL = d' F d / 2, with F the Fisher
information E[g g'] of the gradient g of the model's own log-likelihood, its labels drawn from the model (Amari, Natural
Gradient Works Efficiently in Learning, doi:10.1162/089976698300017746; used to rank quantization in Dong et al.,
HAWQ-V2, arXiv:1911.03852, and Li et al., BRECQ, arXiv:2102.05426). With d = D x, the sum over tokens of (g . D x)^2 / 2
needs no matrix, and one pass back through the layers serves every candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from toolkit.convert.candidates import Candidates
from toolkit.convert.grouping import with_linears
from toolkit.forward.decoder import Apply, Decoder, apply
from toolkit.specs import ModelSpec, Progress, parts
from toolkit.weights import Layer, Weights

if TYPE_CHECKING:
    import torch

#: Tokens that go through a layer together: bounds what one backward step keeps.
TOKENS_AT_ONCE = 512
#: Tokens that are scored, fewer where the hidden states of every layer would not fit.
MAX_TOKENS, MAX_BYTES = 2048, 2 << 30
STEP = "Weigh the candidates"
#: (layer, group) → recipe name → nats per token
Scores = dict[tuple[int, str], dict[str, float]]


def scored_rows(spec: ModelSpec, ids: torch.Tensor) -> torch.Tensor:
    """Return as many rows of ids as are worth it and fit."""
    fitting = MAX_BYTES // (4 * spec.hidden_size * (spec.num_layers + 1))
    return ids[: max(1, min(MAX_TOKENS, fitting) // ids.shape[1])]


class Sensitivity:
    """Walks forward once, keeping the hidden states between layers, then back, a layer at a time."""

    def __init__(self, spec: ModelSpec, weights: Weights, candidates: Candidates, ids: torch.Tensor) -> None:
        self.spec, self.weights, self.candidates = spec, weights, candidates
        self.ids = scored_rows(spec, ids)

    def scores(self, progress: Progress, *, seed: int = 0) -> Scores:
        """Return the estimated KL divergence, in nats per token, of every candidate of every group alone."""
        import torch

        found: Scores = {}
        layers, total = self.spec.num_layers, 4 * self.spec.num_layers  # going back costs three times going forward
        with torch.inference_mode(mode=False), torch.enable_grad():
            states = self._forward(progress, total)
            gradient = self._head_gradient(states.pop(), seed)
            for index in reversed(range(layers)):
                progress(STEP, total - 3 * (index + 1), total)
                sums, gradient = self._back(self.weights.layer(index), states.pop(), gradient)
                found |= {
                    (index, group): {name: each / self.ids.numel() for name, each in kinds.items()}
                    for group, kinds in sums.items()
                }
        progress(STEP, total, total)
        return dict(sorted(found.items()))

    def _forward(self, progress: Progress, total: int) -> list[torch.Tensor]:
        """Return the hidden states before each layer and behind the last."""
        import torch

        with torch.no_grad():
            states = [self.weights.embed(self.ids)]
            decoder = self._decoder(states[0])
            for index in range(self.spec.num_layers):
                progress(STEP, index, total)
                layer, before = self.weights.layer(index), states[-1]
                states.append(torch.cat([decoder.layer(layer, before[rows]) for rows in self._pieces()]))
        return states

    def _head_gradient(self, hidden: torch.Tensor, seed: int) -> torch.Tensor:
        """Return the gradient of log p(y) with y drawn from p, at the last hidden states."""
        import torch

        norm, head = self.weights.final_norm(), self.weights.head().to(hidden.device)
        decoder, generator = self._decoder(hidden), torch.Generator().manual_seed(seed)
        gradients = []
        for row in hidden:
            state = row.detach().requires_grad_()
            log_p = decoder.logits(state, norm, head).log_softmax(-1)
            drawn = torch.multinomial(log_p.detach().exp().cpu(), 1, generator=generator).to(hidden.device)
            gradients.append(torch.autograd.grad(log_p.gather(-1, drawn).sum(), state)[0])
        return torch.stack(gradients)

    def _back(
        self, layer: Layer, hidden: torch.Tensor, gradient: torch.Tensor
    ) -> tuple[dict[str, dict[str, float]], torch.Tensor]:
        """Return each candidate's sum of (g . d)^2 / 2, and the gradient before the layer."""
        import torch

        watch = _Watch(self.spec, layer, self.candidates)
        decoder = self._decoder(hidden, watch.watched)
        before = []
        for rows in self._pieces():
            state = hidden[rows].detach().requires_grad_()
            behind = decoder.layer(watch.layer, state)
            before.append(torch.autograd.grad(behind, state, gradient[rows])[0])
        return watch.sums, torch.cat(before)

    def _pieces(self) -> Iterator[slice]:
        step = max(1, TOKENS_AT_ONCE // self.ids.shape[1])
        return (slice(start, start + step) for start in range(0, len(self.ids), step))

    def _decoder(self, hidden: torch.Tensor, watched: Apply = apply) -> Decoder:
        return Decoder(self.spec, max_length=self.ids.shape[1], device=str(hidden.device), apply=watched)


class _Watch:
    """Runs a float layer; on the way back, multiplies each output's gradient with every candidate's change of it."""

    def __init__(self, spec: ModelSpec, layer: Layer, candidates: Candidates) -> None:
        self.layer = layer.as_float32()
        self._group_of = {part: group for group, members in parts.groups(spec, layer.index).items() for part in members}
        self._changed: dict[str, dict[str, Layer]] = {}  # group → recipe → the layer with that group changed
        self.sums: dict[str, dict[str, float]] = {}
        for group in parts.groups(spec, layer.index):
            recipes = candidates.choices.get((layer.index, group), ())
            self._changed[group] = {
                recipe.name: with_linears(layer, candidates.of(layer, group, recipe))
                for recipe in recipes
                if recipe.quant_algo
            }
            if recipes:
                self.sums[group] = {recipe.name: 0.0 for recipe in recipes}

    def watched(self, layer: Layer, part: str, inputs: torch.Tensor) -> torch.Tensor:
        """Return what a part makes of its inputs, and wait for the gradient."""
        import torch

        made = apply(layer, part, inputs)
        group = self._group_of[part]
        with torch.no_grad():
            others = self._changed[group].items()
            changes = {name: apply(other, part, inputs.detach()).sub_(made) for name, other in others}
        if changes:
            made.register_hook(lambda gradient: self._add(group, changes, gradient))
        return made

    def _add(self, group: str, changes: Mapping[str, torch.Tensor], gradient: torch.Tensor) -> None:
        for name, change in changes.items():
            self.sums[group][name] += float((gradient * change).sum(-1).square().sum()) / 2
