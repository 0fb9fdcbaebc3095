"""Unified Hugging Face checkpoint → nothing more: the LLM API loads it as it is; what it is told is in model.yaml."""

from __future__ import annotations

import json
from pathlib import Path

from toolkit.engine.toolchain import CHECKPOINT, Toolchain
from toolkit.errors import BuildError
from toolkit.specs import BuildPlan, Progress

STEP = "Check the checkpoint"


def check(plan: BuildPlan, folder: Path, progress: Progress) -> None:
    """Raise BuildError unless the folder is what the LLM API recognizes as the plan's quantization."""
    progress(STEP, 0, 1)
    checkpoint = folder / CHECKPOINT
    missing = [name for name in ("config.json", "tokenizer.json") if not (checkpoint / name).is_file()]
    if missing:
        raise BuildError(f"{checkpoint} has no {', '.join(missing)}, which the LLM API reads.")
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    is_described = (checkpoint / "hf_quant_config.json").is_file() or "quantization_config" in config
    if plan.conversion.recipe.quant_algo and not is_described:
        raise BuildError(f"{checkpoint} does not say how it is quantized: the LLM API would read it as 16-bit weights.")
    progress(STEP, 1, 1)


TOOLCHAIN = Toolchain(name="llmapi", kind="llmapi", needs_builder=False, compile=check, versions=dict)
