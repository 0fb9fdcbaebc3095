"""A model's rope scaling as TensorRT-LLM computes it, which is not in everything as Hugging Face does."""

from __future__ import annotations

import math
from typing import Any

from toolkit import rope
from toolkit.specs import ModelSpec


def rotary_scaling(model: ModelSpec) -> dict[str, Any] | None:
    """Return config.json's rotary_scaling; what TensorRT-LLM would take otherwise is said in its own words."""
    scaling = model.rope_scaling
    # Up to max_position_embeddings, which plans keep to, dynamic scaling changes nothing; TensorRT-LLM's RotaryScaling
    # of that name is another one, Hunyuan's, and fails without its alpha.
    if scaling is None or scaling["rope_type"] == "dynamic":
        return None
    if scaling["rope_type"] == "yarn":
        return {**scaling, **_yarn(model)}
    return dict(scaling)


def _yarn(model: ModelSpec) -> dict[str, float]:
    """Say YaRN's factors so that the builder's 0.1 * mscale * ln(factor) + 1 is what the model has; it knows no other.

    A factor that is not given is 1 to the builder, and the ratio of contexts to Hugging Face.
    """
    assert model.rope_scaling, "the caller looked"
    trained = model.rope_scaling["original_max_position_embeddings"]
    factor = float(model.rope_scaling.get("factor") or model.max_position_embeddings / trained)
    _, sharpness = rope.rotary_of(model, length=0)
    mscale = round((sharpness - 1) / (0.1 * math.log(factor)), 12) if factor > 1 else 1.0
    return {"factor": factor, "attention_factor": sharpness, "mscale": mscale, "mscale_all_dim": 0.0}
