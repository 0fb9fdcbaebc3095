"""Which quantization each module of a checkpoint has, and what of it the CPU engine can serve."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from toolkit.errors import PlanInfeasible
from toolkit.specs import MIXED_PRECISION, STAYS_16_BIT

#: Weight-only formats: their activations stay floats, so float32 arithmetic computes exactly what they say.
SERVED = {None, "W8A16", "W4A16", "W4A16_AWQ"}


class ModuleFormats:
    """Looks modules up in config.json's quantization and, for mixed precision, in quant_cfg.json."""

    def __init__(self, quantization: Mapping[str, Any], layers: Mapping[str, Mapping[str, Any]]) -> None:
        self._algo: str | None = quantization.get("quant_algo")
        excluded = quantization.get("exclude_modules")
        self._excluded = STAYS_16_BIT if excluded is None else tuple(excluded)
        self._layers = layers
        for algo in (
            [entry.get("quant_algo") for entry in layers.values()] if self._algo == MIXED_PRECISION else [self._algo]
        ):
            _need_served(algo)
        if quantization.get("kv_cache_quant_algo"):
            raise PlanInfeasible(
                f"The checkpoint stores its KV cache as {quantization['kv_cache_quant_algo']}, "
                "which the CPU engine does not.",
                hint="Quantize again with --kv-cache none.",
            )

    @classmethod
    def read(cls, folder: Path, config: Mapping[str, Any]) -> ModuleFormats:
        """Return the formats of a checkpoint folder."""
        path = folder / "quant_cfg.json"
        layers = json.loads(path.read_text(encoding="utf-8"))["quantized_layers"] if path.is_file() else {}
        return cls(config.get("quantization") or {}, layers)

    def algo_of(self, module: str) -> str | None:
        """Return a module's quant_algo, None where it stays in 16 bits."""
        if self._algo != MIXED_PRECISION:
            return None if self._is_excluded(module) else self._algo
        if module in self._layers:
            return self._layers[module].get("quant_algo")
        for pattern, entry in self._layers.items():
            if fnmatchcase(module, pattern):
                return entry.get("quant_algo")
        return None

    def _is_excluded(self, module: str) -> bool:
        # Formats that trtllm-build rounds itself are excluded by the names of tensors.
        names = (module, f"{module}.weight")
        return any(fnmatchcase(name, pattern) for name in names for pattern in self._excluded)


def _need_served(algo: str | None) -> None:
    if algo not in SERVED:
        known = ", ".join(sorted(filter(None, SERVED)))
        raise PlanInfeasible(
            f"The CPU engine does not serve {algo}: it computes activations in float32, and serves {known} "
            "and 16-bit weights.",
            hint="Try --quant int4 or --quant int8; `trtk quants` shows what runs where.",
        )
