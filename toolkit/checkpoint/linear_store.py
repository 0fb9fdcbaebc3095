"""Quantized linears kept on disk between two steps of a conversion, a file per layer."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.files import written_whole
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

FIELDS = ("weight", "weight_scale", "weight_scale_2", "activation_scale", "prequant", "bias")
ALGOS = "algos"


class LinearStore:
    """Linears by name; a layer's file is there whole or not at all, so that an interrupted search goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __contains__(self, layer: int) -> bool:
        return self._path(layer).is_file()

    def save(self, layer: int, linears: Mapping[str, Linear]) -> None:
        """Keep a layer's linears, packed as their formats pack them."""
        from safetensors.torch import save_file

        tensors: dict[str, torch.Tensor] = {}
        for name, linear in linears.items():
            for field in FIELDS:
                tensor = getattr(linear, field)
                if tensor is not None:
                    # Linears of a group share prequant factors in memory; safetensors holds no aliases.
                    packed = quant.format_of(linear.algo).pack(tensor) if field == "weight" else tensor.clone()
                    tensors[f"{name}/{field}"] = packed.cpu().contiguous()
        algos = json.dumps({name: linear.algo for name, linear in linears.items()})
        with written_whole(self._path(layer)) as temporary:
            save_file(tensors, str(temporary), metadata={ALGOS: algos})

    def load(self, layer: int, names: Iterable[str], *, device: str = "cpu") -> dict[str, Linear]:
        """Return those of NAMES that the layer has."""
        from safetensors import safe_open

        if layer not in self:
            return {}
        with safe_open(str(self._path(layer)), framework="pt") as file:
            algos, stored = json.loads(file.metadata()[ALGOS]), set(file.keys())
            found = {}
            for name in names:
                if name not in algos:
                    continue
                fields = {field: file.get_tensor(f"{name}/{field}") for field in FIELDS if f"{name}/{field}" in stored}
                fields["weight"] = quant.format_of(algos[name]).unpack(fields["weight"])
                found[name] = Linear(algo=algos[name], **fields).to(device)
        return found

    def _path(self, layer: int) -> Path:
        return self.folder / f"layer{layer}.safetensors"
