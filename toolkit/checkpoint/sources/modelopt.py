"""ModelOpt's unified Hugging Face checkpoints: FP8, W4A16_AWQ, W4A8_AWQ, NVFP4; tensors say which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toolkit import quant
from toolkit.checkpoint import stored_float8
from toolkit.checkpoint.shards import E4M3
from toolkit.checkpoint.stored import Kind, SourceMethod
from toolkit.weights import Linear

if TYPE_CHECKING:
    from toolkit.checkpoint.shards import Shards


class ModelOptReader:
    """Reads linears whose names and bytes are those of quant/formats."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        nested = config.get("quantization") or config
        self.title = f"ModelOpt, {nested.get('quant_algo')}"

    def kind(self, shards: Shards, module: str) -> Kind | None:
        """Return what the module's tensors say."""
        if stored_float8.is_float8(shards, module):
            return stored_float8.kind(shards, module)
        algo = _packed_algo(shards, module)
        if algo is None:
            return None
        groups = shards.shape(f"{module}.weight_scale")[1]
        columns = shards.shape(f"{module}.weight")[1] * (2 if algo == "NVFP4" else 1)
        if ".experts." in module and f"{module}.pre_quant_scale" in shards:
            return Kind(algo=None, reason="its experts have input factors of their own")
        second = f"{module}.weight_scale_2"
        scale_2 = float(shards.tensor(second)) if second in shards else None
        return Kind(algo=algo, group_size=columns // groups, scale_2=scale_2)

    def read(self, shards: Shards, module: str) -> Linear:
        """Return the stored weight, unpacked, and its scales."""
        if stored_float8.is_float8(shards, module):
            return stored_float8.read(shards, module)
        form = quant.format_of(_packed_algo(shards, module))
        fields = {}
        for field, name in form.hf_names.items():
            if f"{module}.{name}" in shards and field not in {"weight", "bias"}:
                is_float8 = shards.dtype(f"{module}.{name}") == E4M3
                fields[field] = (shards.float8 if is_float8 else shards.tensor)(f"{module}.{name}")
        for field in ("weight_scale_2", "activation_scale"):
            if field in fields:
                fields[field] = fields[field].float().reshape(())
        return Linear(algo=form.algo, weight=form.unpack(shards.integers(f"{module}.weight")), **fields)


def _packed_algo(shards: Shards, module: str) -> str | None:
    """Return the format of a module whose weight is bytes of two 4-bit numbers."""
    name = f"{module}.weight"
    if name not in shards or shards.dtype(name) not in {"U8", "I8"}:
        return None
    if shards.dtype(f"{module}.weight_scale") == E4M3:
        return "NVFP4"
    return "W4A8_AWQ" if f"{module}.weight_scale_2" in shards else "W4A16_AWQ"


SOURCE = SourceMethod(name="modelopt", open=ModelOptReader)
