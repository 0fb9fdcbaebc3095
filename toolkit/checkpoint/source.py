"""Hugging Face shards → decoder layers, embedding and head, one at a time."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.checkpoint.shards import Shards
from toolkit.checkpoint.stored import Kind, reader_of
from toolkit.errors import BuildError
from toolkit.models import TensorNames, parts
from toolkit.models.parts import small_names, tensor_name, tensors_of
from toolkit.specs import ModelSpec
from toolkit.weights import Layer, Linear, rows

if TYPE_CHECKING:
    import torch


class SourceModel:
    """A model's tensors, read by memory map: a linear's weight keeps the file's dtype until somebody computes.

    Linears that are stored quantized come in a format of quant/formats, or as float32 where none has their numbers.
    """

    def __init__(self, shards: Shards, names: TensorNames, spec: ModelSpec, *, device: str = "cpu") -> None:
        self.shards, self.names, self.spec, self.device = shards, names, spec, device
        self.reader = reader_of(shards.folder)
        self.is_dequantized = False

    def in_float(self) -> SourceModel:
        """Return the same model with every linear as a float one."""
        made = SourceModel(self.shards, self.names, self.spec, device=self.device)
        made.is_dequantized = True
        return made

    def kind(self, index: int, part: str) -> Kind | None:
        """Return as what a part of a layer is stored quantized, None for a float linear."""
        module = f"{self.names.layer.format(index=index)}{tensor_name(self.names, part)}"
        return self.reader.kind(self.shards, module) if self.reader else None

    def layer(self, index: int) -> Layer:
        """Return one layer; raises BuildError when a tensor is missing, misshapen or not finite."""
        linears = {}
        shapes = parts.shapes(self.spec, index)
        for name, together in tensors_of(self.spec, self.names, index).items():
            whole = self._linear(f"{self.names.layer.format(index=index)}{name}")
            self._check(whole, (sum(shapes[part][0] for part in together), shapes[together[0]][1]), f"{index}'s {name}")
            start = 0
            for part in together:
                linears[part] = rows(whole, start, start + shapes[part][0]) if len(together) > 1 else whole
                start += shapes[part][0]
        return Layer(index=index, linears=linears, tensors=self._small(index))

    def embedding(self) -> torch.Tensor:
        """Return the embedding as stored, [vocab, hidden]."""
        return self.shards.tensor(f"{self.names.embedding}.weight")

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return float32 hidden states of token ids, scaled as the family says."""
        found = self.shards.rows(f"{self.names.embedding}.weight", ids.reshape(-1)).float()
        return (found.reshape(*ids.shape, -1) * self.spec.embedding_scale).to(self.device)

    def head(self) -> torch.Tensor:
        """Return the output matrix as stored, [vocab, hidden]: the embedding where it is tied."""
        name = self.names.embedding if self.spec.is_tied else self.names.lm_head
        if self.reader and self.reader.kind(self.shards, name):
            return quant.as_float(self.reader.read(self.shards, name)).weight
        return self.shards.tensor(f"{name}.weight")

    def final_norm(self) -> torch.Tensor:
        """Return the final norm's float32 weight, with the family's offset."""
        return self._small_tensor(f"{self.names.final_norm}.weight")

    def _linear(self, name: str) -> Linear:
        if self.reader and self.reader.kind(self.shards, name):
            linear = self.reader.read(self.shards, name)
        else:
            linear = Linear(weight=self.shards.tensor(f"{name}.weight"))
        if f"{name}.bias" in self.shards:
            linear = dataclasses.replace(linear, bias=self.shards.tensor(f"{name}.bias"))
        linear = linear.to(self.device)
        return quant.as_float(linear) if self.is_dequantized else linear

    def _check(self, linear: Linear, expected: tuple[int, int], where: str) -> None:
        if linear.shape != expected:
            raise BuildError(
                f"Layer {where} has shape {linear.shape}, but config.json says {expected}.",
                hint="config.json and the weights are of different models.",
            )

    def _small(self, index: int) -> dict[str, torch.Tensor]:
        prefix = self.names.layer.format(index=index)
        return {
            module: self._small_tensor(f"{prefix}{name}.weight", is_norm=module in self.names.norms)
            for module, name in small_names(self.spec, self.names, index).items()
        }

    def _small_tensor(self, name: str, *, is_norm: bool = True) -> torch.Tensor:
        found = self.shards.tensor(name).float()
        return (found + self.spec.norm_offset if is_norm else found).to(self.device)
