"""The tokens that the engine knows."""

from __future__ import annotations

from pathlib import Path

import openvino


def size_in(engine: Path) -> int:
    """Return how many tokens a model tells apart; those of the tokenizer may be fewer."""
    logits = openvino.Core().read_model(str(engine / "openvino_model.xml")).output("logits")
    return int(logits.partial_shape[-1].get_length())
