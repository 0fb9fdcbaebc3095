"""A module's tensors in one rank file → a Linear: which format it has, and what its names and shapes mean there."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from toolkit import quant
from toolkit.errors import BuildError
from toolkit.quant.format import WeightFormat
from toolkit.specs import MIXED_PRECISION, STAYS_16_BIT
from toolkit.weights import Linear

if TYPE_CHECKING:
    import torch

#: Formats whose file holds float weights that the builder rounds.
ROUNDED_BY_BUILDER = {"W8A16", "W4A16"}
SCALES = ("weight_scale", "weight_scale_2", "activation_scale")
#: A rank's tensors of one module, by their names below it.
Stored = Mapping[str, "torch.Tensor"]


class FormatTable:
    """The quant_algo of each module, as config.json and, for mixed precision, quant_cfg.json say."""

    def __init__(self, quantization: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]]) -> None:
        self.algo: str | None = quantization.get("quant_algo")
        self.layers = layers
        excluded = quantization.get("exclude_modules")
        self.excluded = tuple(STAYS_16_BIT if excluded is None else excluded)

    def algo_of(self, module: str) -> str | None:
        """Return a module's quant_algo, None for 16 bits; an exact name goes before a pattern."""
        if any(fnmatchcase(module, pattern) for pattern in self.excluded):
            return None
        if self.algo != MIXED_PRECISION:
            return self.algo
        if module in self.layers:
            return self.layers[module].get("quant_algo")
        matches = (entry for pattern, entry in self.layers.items() if fnmatchcase(module, pattern))
        return next(matches, {}).get("quant_algo")


def linear_of(
    module: str, stored: Stored, algo: str | None, *, expert: int | None = None, layout: str = "trtllm"
) -> Linear:
    """Return a module's Linear, unpacked, from tensors under a layout's names; EXPERT picks one of a stacked module."""
    import torch

    if "weight" not in stored:
        raise BuildError(f"The checkpoint has no tensor {module}.weight.", hint="Quantize the model again.")
    is_float = stored["weight"].dtype in {torch.float32, torch.float16, torch.bfloat16}
    if is_float and algo not in ROUNDED_BY_BUILDER:
        algo = None  # a module that the producer left alone without listing it
    form = quant.format_of(algo)
    names = form.trtllm_names if layout == "trtllm" else form.hf_names
    fields = {field: stored[name] for field, name in names.items() if name in stored}
    if expert is not None:
        fields = {field: _of_expert(field, tensor, expert) for field, tensor in fields.items()}
    for field in SCALES:
        if field in fields and fields[field].numel() == 1:
            fields[field] = fields[field].reshape(())
    if not is_float:
        _need_scales(module, fields, algo)
        fields["weight"] = _unpacked(fields["weight"], form)
    return Linear(algo=algo, **fields)


def _of_expert(field: str, tensor: torch.Tensor, expert: int) -> torch.Tensor:
    """Return one expert's part of a stacked tensor; scales of inputs and prequant factors may be shared by all."""
    is_shared = tensor.numel() == 1 or (field == "prequant" and tensor.dim() == 1)
    return tensor if is_shared else tensor[expert]


def _unpacked(weight: torch.Tensor, form: WeightFormat) -> torch.Tensor:
    import torch

    if (form.algo or "").startswith("FP8") and weight.dtype == torch.int8:  # either dtype is legal for these bytes
        return weight.view(torch.float8_e4m3fn)
    return form.unpack(weight)


def _need_scales(module: str, fields: Mapping[str, torch.Tensor], algo: str | None) -> None:
    if algo is None or "weight_scale" not in fields:
        what = "no scale" if algo else "no format in config.json"
        raise BuildError(
            f"The checkpoint's {module} holds {fields['weight'].dtype} weights, but has {what}.",
            hint="config.json and the rank files are of different checkpoints; quantize the model again.",
        )
