"""Decoder layers → a TensorRT-LLM checkpoint: config.json and rank{r}.safetensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.checkpoint import sharding
from toolkit.checkpoint.assignment import Assignment
from toolkit.checkpoint.rank_file import RankFile
from toolkit.checkpoint.trtllm_config import checkpoint_config
from toolkit.files import write_json
from toolkit.models import parts
from toolkit.quant.float16 import as_dtype
from toolkit.specs import ConversionPlan
from toolkit.weights import Layer, Linear, joined_rows

if TYPE_CHECKING:
    import torch

#: Tensors of a layer (experts are stacked), of the ends and some to spare; sizes the header that RankFile reserves.
MAX_TENSORS_PER_LAYER, MAX_TENSORS_AT_ENDS = 48, 16
#: What stays in float32 whatever the model's dtype.
FLOAT32_TENSORS = {"mlp.router"}


class TrtllmWriter:
    """Writes each layer to the ranks that hold it; resumes at the first layer that is not in every journal."""

    def __init__(self, plan: ConversionPlan, work: Path) -> None:
        import torch

        self.plan, self.spec, self.work = plan, plan.model, work
        self.dtype: torch.dtype = getattr(torch, plan.dtype)
        room = MAX_TENSORS_PER_LAYER * self.spec.num_layers + MAX_TENSORS_AT_ENDS
        world = plan.sharding.tp * plan.sharding.pp
        self.ranks = [RankFile(work / f"rank{rank}.safetensors", max_tensors=room) for rank in range(world)]

    def has(self, step: str) -> bool:
        """Return whether a step is written on every rank that takes part in it."""
        return all(step in rank.finished_steps for _, rank in self._ranks_of(self._stage_of_step(step)))

    def write_embedding(self, weight: torch.Tensor) -> None:
        """Write the embedding to the first stage."""
        cast = as_dtype(weight, self.dtype, "transformer.vocab_embedding")
        self._write("embedding", lambda _: {"transformer.vocab_embedding.weight": cast})

    def write_layer(self, layer: Layer) -> None:
        """Write a layer, under its number within its stage."""
        _, local = sharding.stage_of(self.plan.sharding, self.spec.num_layers, layer.index)

        def tensors(tp_rank: int) -> dict[str, torch.Tensor]:
            return {f"transformer.layers.{local}.{name}": t for name, t in self._layer_tensors(layer, tp_rank)}

        self._write(f"layer {layer.index}", tensors)

    def write_head(self, norm: torch.Tensor, head: torch.Tensor) -> None:
        """Write the final norm and the output matrix to the last stage."""
        # A tied head is written out as well: trtllm-build shares equal constants, and needs both names for tp > 1.
        ends = {
            "transformer.ln_f.weight": as_dtype(norm, self.dtype, "transformer.ln_f"),
            "lm_head.weight": as_dtype(head, self.dtype, "lm_head"),
        }
        self._write("head", lambda _: ends)

    def finish(self, assignment: Assignment) -> None:
        """Write the headers and, last, config.json."""
        for rank in self.ranks:
            rank.finish()
        write_json(self.work / "config.json", checkpoint_config(self.plan, assignment))

    def close(self) -> None:
        """Close the rank files without finishing: what their journals have can be resumed."""
        for rank in self.ranks:
            rank.close()

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

    def _layer_tensors(self, layer: Layer, tp_rank: int) -> Iterator[tuple[str, torch.Tensor]]:
        for module, names in parts.modules(self.spec, layer.index).items():
            local = [
                sharding.local_part(self.spec, self.plan.sharding, name, layer.linears[name], tp_rank=tp_rank)
                for name in names
            ]
            held = [linear for linear in local if linear is not None]
            if held:
                yield from self._linear_tensors(module, joined_rows(held))
        for name, tensor in layer.tensors.items():
            is_kept = name in FLOAT32_TENSORS
            cast = tensor if is_kept else as_dtype(tensor, self.dtype, f"{name} of layer {layer.index}")
            yield f"{name}.weight", cast

    def _linear_tensors(self, module: str, linear: Linear) -> Iterator[tuple[str, torch.Tensor]]:
        form = quant.format_of(linear.algo)
        for field, name in form.trtllm_names.items():
            tensor = getattr(linear, field)
            if tensor is None:
                continue
            if field == "weight":
                tensor = form.pack(tensor)
            elif field == "bias":
                tensor = as_dtype(tensor, self.dtype, f"{module}.bias")
            elif tensor.dim() == 0:
                tensor = tensor.reshape(form.trtllm_scalar_shape)
            yield f"{module}.{name}", tensor
