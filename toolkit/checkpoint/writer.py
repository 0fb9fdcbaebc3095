"""What a conversion writes into: the layouts that a checkpoint can have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from toolkit.checkpoint.assignment import Assignment
from toolkit.checkpoint.hf_writer import HfWriter
from toolkit.checkpoint.trtllm_writer import TrtllmWriter
from toolkit.specs import ConversionPlan
from toolkit.weights import Layer

if TYPE_CHECKING:
    import torch


class Writer(Protocol):
    """Steps are `embedding`, `layer N` and `head`; each is written whole or not at all."""

    def has(self, step: str) -> bool:
        """Return whether a step was written, now or before an interruption."""

    def write_embedding(self, weight: torch.Tensor) -> None:
        """Write the embedding, [vocab, hidden]."""

    def write_layer(self, layer: Layer) -> None:
        """Write a quantized layer."""

    def write_head(self, norm: torch.Tensor, head: torch.Tensor) -> None:
        """Write the final norm (offset added) and the output matrix [vocab, hidden]."""

    def finish(self) -> None:
        """Complete the files; config.json comes last."""

    def close(self) -> None:
        """Let go of the files, finished or not."""


def open_writer(plan: ConversionPlan, work: Path, *, assignment: Assignment, source: Path) -> Writer:
    """Return the writer of a plan's layout for the model in SOURCE; raises PlanInfeasible when it cannot hold that."""
    if plan.layout == "hf":
        return HfWriter(plan, work, assignment=assignment, source=source)
    return TrtllmWriter(plan, work, assignment)
