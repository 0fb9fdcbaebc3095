"""Decoder layers → a TensorRT-LLM checkpoint: config.json and rank{r}.safetensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.checkpoint import sharding, trtllm_config
from toolkit.checkpoint.assignment import Assignment
from toolkit.checkpoint.rank_file import RankFile
from toolkit.checkpoint.trtllm_tensors import layer_tensors
from toolkit.files import write_json
from toolkit.models import parts
from toolkit.quant.float16 import as_dtype
from toolkit.specs import ConversionPlan, ModelSpec
from toolkit.weights import Layer

if TYPE_CHECKING:
    import torch

#: Sizes the header that RankFile reserves: a linear's fields; norms, router, shared gate and KV scale; the ends.
TENSORS_PER_LINEAR, TENSORS_BESIDE, TENSORS_AT_ENDS = 6, 9, 3


class TrtllmWriter:
    """Writes each layer to the ranks that hold it; resumes at the first layer that is not in every journal."""

    def __init__(self, plan: ConversionPlan, work: Path, assignment: Assignment) -> None:
        import torch

        self.plan, self.spec, self.work = plan, plan.model, work
        self.dtype: torch.dtype = getattr(torch, plan.dtype)
        # Made first: what the layout cannot say is refused before anything is written.
        self.files = trtllm_config.documents(plan, assignment)
        world = plan.sharding.tp * plan.sharding.pp
        room = _tensors_of(self.spec)
        self.ranks = [RankFile(work / f"rank{rank}.safetensors", max_tensors=room) for rank in range(world)]

    def has(self, step: str) -> bool:
        """Return whether a step is written on every rank that takes part in it."""
        return all(step in rank.finished_steps for _, rank in self._ranks_of(self._stage_of_step(step)))

    def write_embedding(self, weight: torch.Tensor) -> None:
        """Write the embedding to the first stage, each rank its rows of it."""
        name = "transformer.vocab_embedding"
        self._write("embedding", lambda rank: {f"{name}.weight": self._vocabulary_rows(weight, rank, name)})

    def write_layer(self, layer: Layer) -> None:
        """Write a layer, under its number within its stage."""
        _, local = sharding.stage_of(self.plan.sharding, self.spec.num_layers, layer.index)
        prefix = f"transformer.layers.{local}."

        def tensors(tp_rank: int) -> dict[str, torch.Tensor]:
            return {f"{prefix}{name}": tensor for name, tensor in layer_tensors(self.plan, layer, tp_rank=tp_rank)}

        self._write(f"layer {layer.index}", tensors)

    def write_head(self, norm: torch.Tensor, head: torch.Tensor) -> None:
        """Write the final norm and the output matrix to the last stage."""

        # A tied head is written out as well: trtllm-build shares equal constants, and needs both names for tp > 1.
        def tensors(tp_rank: int) -> dict[str, torch.Tensor]:
            return {
                "transformer.ln_f.weight": as_dtype(norm, self.dtype, "transformer.ln_f"),
                "lm_head.weight": self._vocabulary_rows(head, tp_rank, "lm_head"),
            }

        self._write("head", tensors)

    def finish(self) -> None:
        """Write the headers and, last, config.json."""
        for rank in self.ranks:
            rank.finish()
        for name, document in self.files.items():
            write_json(self.work / name, document)

    def close(self) -> None:
        """Close the rank files without finishing: what their journals have can be resumed."""
        for rank in self.ranks:
            rank.close()

    def _vocabulary_rows(self, weight: torch.Tensor, tp_rank: int, name: str) -> torch.Tensor:
        """Return a rank's share of [vocab, hidden], with rows of zeros behind the last where tp does not divide."""
        import torch

        share = -(-weight.shape[0] // self.plan.sharding.tp)
        rows = as_dtype(weight[tp_rank * share : (tp_rank + 1) * share], self.dtype, name)
        return torch.nn.functional.pad(rows, (0, 0, 0, share - rows.shape[0])) if rows.shape[0] < share else rows

    def _write(self, step: str, tensors: Callable[[int], dict[str, torch.Tensor]]) -> None:
        for tp_rank, rank in self._ranks_of(self._stage_of_step(step)):
            if step not in rank.finished_steps:
                with rank.step(step):
                    rank.append(tensors(tp_rank))

    def _ranks_of(self, stage: int) -> Iterator[tuple[int, RankFile]]:
        tp = self.plan.sharding.tp
        return enumerate(self.ranks[stage * tp : (stage + 1) * tp])

    def _stage_of_step(self, step: str) -> int:
        if step.startswith("layer "):
            return sharding.stage_of(self.plan.sharding, self.spec.num_layers, int(step.split()[1]))[0]
        return 0 if step == "embedding" else self.plan.sharding.pp - 1


def _tensors_of(spec: ModelSpec) -> int:
    """Return the most tensors that one rank can hold; experts are stacked."""
    total = TENSORS_AT_ENDS
    for layer in range(spec.num_layers):
        stacked = {".".join(m.split(".")[:: 3 if "experts" in m else 1]) for m in parts.modules(spec, layer)}
        total += TENSORS_PER_LINEAR * len(stacked) + TENSORS_BESIDE
    return total
