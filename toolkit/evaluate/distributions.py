"""Two models' next-token distributions compared, without holding a row of logits for a whole vocabulary."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Logits of both models that are in memory at once.
LOGITS_AT_ONCE = 1 << 24
#: (start, stop) of the vocabulary → float32 logits [tokens, stop - start].
Logits = Callable[[int, int], "torch.Tensor"]


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What is added up over tokens."""

    nll_base: float
    nll: float
    kl: float
    agreements: int
    tokens: int


class _Running:
    """log-sum-exp, the largest logit and the target's logit over pieces of the vocabulary."""

    def __init__(self, targets: torch.Tensor) -> None:
        import torch

        self.targets = targets
        self.peak = torch.full(targets.shape, -torch.inf, device=targets.device)
        self.total = torch.zeros(targets.shape, dtype=torch.float64, device=targets.device)
        self.best = torch.zeros_like(targets)
        self.target = torch.zeros(targets.shape, device=targets.device)

    def add(self, logits: torch.Tensor, start: int) -> torch.Tensor:
        """Take the logits of start, start+1, ...; return by how much earlier sums had to be scaled."""
        import torch

        highest, at = logits.max(-1)
        self.best = torch.where(highest > self.peak, at + start, self.best)
        peak = torch.maximum(self.peak, highest)
        shrink = (self.peak - peak).exp().double()
        self.total = self.total * shrink + (logits - peak[:, None]).exp().sum(-1, dtype=torch.float64)
        self.peak = peak
        inside = (self.targets >= start) & (self.targets < start + logits.shape[1])
        rows = inside.nonzero().squeeze(1)
        self.target[rows] = logits[rows, self.targets[rows] - start]
        return shrink

    @property
    def log_total(self) -> torch.Tensor:
        return self.peak.double() + self.total.log()


def compare(base: Logits, other: Logits, targets: torch.Tensor, *, vocab_size: int) -> Scores:
    """Return sums over tokens of -log p(target) under both, KL(base‖other) in nats, and agreeing most likely tokens.

    KL = sum_i p_i (a_i - b_i) - log sum exp a + log sum exp b, with a and b the logits and p the base's probabilities,
    gathered piece by piece of the vocabulary under a running maximum.
    """
    import torch

    left, right = _Running(targets), _Running(targets)
    weighted = torch.zeros(targets.shape, dtype=torch.float64, device=targets.device)
    step = max(1, LOGITS_AT_ONCE // max(1, len(targets)))
    for start in range(0, vocab_size, step):
        stop = min(start + step, vocab_size)
        ours, theirs = base(start, stop), other(start, stop)
        weighted *= left.add(ours, start)
        right.add(theirs, start)
        difference = ours - theirs
        weighted += ours.sub_(left.peak[:, None]).exp_().mul_(difference).sum(-1, dtype=torch.float64)
    kl = weighted / left.total - left.log_total + right.log_total
    return Scores(
        nll_base=float((left.log_total - left.target).sum()),
        nll=float((right.log_total - right.target).sum()),
        kl=float(kl.sum()),
        agreements=int((left.best == right.best).sum()),
        tokens=len(targets),
    )
