"""Decoder layers → a unified Hugging Face checkpoint: an ordinary model folder that says how it is quantized."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.checkpoint import hf_config, hf_tensors
from toolkit.checkpoint.assignment import Assignment, group_size_of
from toolkit.checkpoint.rank_file import RankFile
from toolkit.checkpoint.shards import read_header
from toolkit.files import write_json
from toolkit.models import family_of, parts
from toolkit.quant.float16 import as_dtype
from toolkit.specs import ConversionPlan
from toolkit.weights import Layer

if TYPE_CHECKING:
    import torch

#: Of one file, when a step does not fill it alone.
FILE_BYTES = 4 << 30
#: Sizes the header that RankFile reserves: a linear's fields; norms, routers and KV scales of a layer; the ends.
TENSORS_PER_LINEAR, TENSORS_BESIDE, TENSORS_AT_ENDS = 6, 12, 3
FLOAT_BYTES, SCALE_BYTES = 2, 4
INDEX = "model.safetensors.index.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """What is written whole: its size, estimated, decides its file before anything is quantized."""

    name: str  # embedding, layer N, head
    size_bytes: int
    tensors: int


class HfWriter:
    """Writes each step to the file that the plan's sizes give it; resumes at the first step that is in no journal."""

    def __init__(self, plan: ConversionPlan, work: Path, *, assignment: Assignment, source: Path) -> None:
        import torch

        self.plan, self.spec, self.work = plan, plan.model, work
        self.names = family_of(plan.model.architecture).tensors
        self.dtype: torch.dtype = getattr(torch, plan.dtype)
        self.documents = hf_config.documents(plan, assignment, source)
        shares = shared_out(_steps(plan, assignment), FILE_BYTES)
        names = [_file_name(number, len(shares)) for number in range(1, len(shares) + 1)]
        self.files = [
            RankFile(work / name, max_tensors=sum(step.tensors for step in share))
            for name, share in zip(names, shares, strict=True)
        ]
        self._file_of = {step.name: file for share, file in zip(shares, self.files, strict=True) for step in share}

    def has(self, step: str) -> bool:
        """Return whether a step is in its file's journal."""
        return step in self._file_of[step].finished_steps

    def write_embedding(self, weight: torch.Tensor) -> None:
        """Write the embedding."""
        name = self.names.embedding
        self._write("embedding", [(f"{name}.weight", as_dtype(weight, self.dtype, name))])

    def write_layer(self, layer: Layer) -> None:
        """Write a layer's linears and norms."""
        self._write(f"layer {layer.index}", hf_tensors.layer_tensors(self.plan, self.names, layer))

    def write_head(self, norm: torch.Tensor, head: torch.Tensor) -> None:
        """Write the final norm and, unless it is the embedding, the output matrix."""
        name, head_name = self.names.final_norm, self.names.lm_head
        ends = [(f"{name}.weight", as_dtype(norm - self.spec.norm_offset, self.dtype, name))]
        if not self.spec.is_tied:
            ends.append((f"{head_name}.weight", as_dtype(head, self.dtype, head_name)))
        self._write("head", ends)

    def finish(self) -> None:
        """Write the headers, the index and, last, config.json."""
        for file in self.files:
            file.finish()
        if len(self.files) > 1:
            write_json(self.work / INDEX, self._index())
        for name, document in self.documents.items():
            write_json(self.work / name, document)

    def close(self) -> None:
        """Close the files without finishing: what their journals have can be resumed."""
        for file in self.files:
            file.close()

    def _write(self, step: str, tensors: Iterable[tuple[str, torch.Tensor]]) -> None:
        file = self._file_of[step]
        with file.step(step):
            file.append(dict(tensors))

    def _index(self) -> dict[str, object]:
        headers = {file.path.name: read_header(file.path) for file in self.files}
        ends = [entry["data_offsets"] for header in headers.values() for entry in header.values()]
        return {
            "metadata": {"total_size": sum(end - start for start, end in ends)},
            "weight_map": {tensor: name for name, header in headers.items() for tensor in header},
        }


def shared_out(steps: list[Step], file_bytes: int) -> list[list[Step]]:
    """Return consecutive steps by file: each file is full, or the next step would not fit."""
    shares: list[list[Step]] = [[]]
    for step in steps:
        if shares[-1] and sum(other.size_bytes for other in shares[-1]) + step.size_bytes > file_bytes:
            shares.append([])
        shares[-1].append(step)
    return shares


def _steps(plan: ConversionPlan, assignment: Assignment) -> list[Step]:
    spec = plan.model
    table = FLOAT_BYTES * spec.vocab_size * spec.hidden_size
    layers = [
        Step(
            name=f"layer {layer}",
            size_bytes=_layer_bytes(plan, assignment, layer),
            tensors=TENSORS_PER_LINEAR * len(parts.shapes(spec, layer)) + TENSORS_BESIDE,
        )
        for layer in range(spec.num_layers)
    ]
    return [
        Step(name="embedding", size_bytes=table, tensors=1),
        *layers,
        Step(name="head", size_bytes=0 if spec.is_tied else table, tensors=TENSORS_AT_ENDS),
    ]


def _layer_bytes(plan: ConversionPlan, assignment: Assignment, layer: int) -> int:
    shapes, total = parts.shapes(plan.model, layer), 0
    for group, members in parts.groups(plan.model, layer).items():
        recipe = assignment.of[layer, group]
        weights = sum(rows * width for rows, width in (shapes[part] for part in members))
        group_size = group_size_of(plan, recipe) if recipe else None
        total += weights * (recipe.weight_bits if recipe else 8 * FLOAT_BYTES) // 8
        total += SCALE_BYTES * weights // group_size if group_size else 0
    return total


def _file_name(number: int, count: int) -> str:
    return "model.safetensors" if count == 1 else f"model-{number:05}-of-{count:05}.safetensors"
