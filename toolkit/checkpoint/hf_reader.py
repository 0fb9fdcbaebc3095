"""A unified Hugging Face checkpoint → decoder layers: ModelOpt's formats by the names in hf_quant_config.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.module_reader import FormatTable, linear_of
from toolkit.checkpoint.shards import E4M3, FLOATS, Shards
from toolkit.checkpoint.source import SourceModel
from toolkit.checkpoint.stored import Kind
from toolkit.checkpoint.tensor_file import AGAIN
from toolkit.files import json_object
from toolkit.models import TensorNames
from toolkit.specs import ModelSpec
from toolkit.weights import Layer, Linear

if TYPE_CHECKING:
    import torch

QUANT_CONFIG = "hf_quant_config.json"
#: Where a scale is missing, TensorRT-LLM's PyTorch backend takes 1.
NO_SCALE = 1.0


class UnifiedCheckpoint:
    """Reads one layer at a time, each linear in the arithmetic of its own format."""

    def __init__(self, folder: Path, names: TensorNames, spec: ModelSpec, *, device: str = "cpu") -> None:
        self.names, self.shards = names, Shards(folder)
        self.quantization = quantization_of(folder)
        self.source = SourceModel(self.shards, names, spec, device=device)
        if (folder / QUANT_CONFIG).is_file():
            layers = self.quantization.get("quantized_layers") or {}
            self.source.reader = _ModuleReader(FormatTable(self.quantization, layers))

    @property
    def kv_cache(self) -> str | None:
        """The KV cache's type in TensorRT-LLM's words, None for the model's dtype."""
        return self.quantization.get("kv_cache_quant_algo")

    def layer(self, index: int) -> Layer:
        """Return one layer with its linears unpacked."""
        layer = self.source.layer(index)
        return dataclasses.replace(layer, scalars=self._kv_scales(index)) if self.kv_cache else layer

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return float32 hidden states of token ids, scaled as the family says."""
        return self.source.embed(ids)

    def final_norm(self) -> torch.Tensor:
        """Return the final norm's float32 weight, with the family's offset."""
        return self.source.final_norm()

    def head(self) -> torch.Tensor:
        """Return the output matrix [vocab, hidden] without padding."""
        return self.source.head()[: self.source.spec.vocab_size]

    def _kv_scales(self, index: int) -> dict[str, float]:
        attention = f"{self.names.layer.format(index=index)}{self.names.linears['attention.q'].rpartition('.')[0]}"
        names = {"attention.k_scale": "k_proj.k_scale", "attention.v_scale": "v_proj.v_scale"}
        found = {scalar: f"{attention}.{name}" for scalar, name in names.items()}
        return {
            scalar: float(self.shards.tensor(name)) if name in self.shards else NO_SCALE
            for scalar, name in found.items()
        }


class _ModuleReader:
    """Reads the linears that hf_quant_config.json says are quantized; a stored.Reader."""

    title, algo = "unified checkpoint", None

    def __init__(self, formats: FormatTable) -> None:
        self.formats = formats

    def kind(self, shards: Shards, module: str) -> Kind | None:
        """Return the module's format, None where its weight is a float one."""
        name = f"{module}.weight"
        return None if name not in shards or shards.dtype(name) in FLOATS else Kind(algo=self.formats.algo_of(module))

    def read(self, shards: Shards, module: str) -> Linear:
        """Return a module's weight and scales, unpacked."""
        algo = self.formats.algo_of(module)
        return linear_of(module, _stored(shards, module), algo, layout="hf")


def _stored(shards: Shards, module: str) -> dict[str, torch.Tensor]:
    """Return a module's tensors, whatever their dtypes, by their names below it."""
    found = {}
    for field in ("weight", "weight_scale", "weight_scale_2", "weight_scale_inv", "input_scale", "pre_quant_scale"):
        name = f"{module}.{field}"
        if name in shards:
            dtype = shards.dtype(name)
            read = shards.float8 if dtype == E4M3 else shards.tensor if dtype in FLOATS else shards.integers
            found[field] = read(name)
    return found


def quantization_of(folder: Path) -> dict[str, Any]:
    """Return what says how a checkpoint is quantized: hf_quant_config.json's own, else config.json's."""
    if (folder / QUANT_CONFIG).is_file():
        document: Mapping[str, Any] = json_object(folder / QUANT_CONFIG, hint=AGAIN)
        return dict(document.get("quantization") or document)
    return dict(json_object(folder / "config.json", hint=AGAIN).get("quantization_config") or {})
