"""Gemma 3, text: Gemma 2 without softcaps, with q and k norms, and a rope of their own in the layers that slide."""

from __future__ import annotations

import dataclasses

from toolkit.models.family import GATED_DECODER, NORMS, QK_NORMS, SANDWICH_NORMS, ModelFamily
from toolkit.models.gemma import gemma3_fields, gemma3_spec

FAMILY = ModelFamily(
    name="gemma3",
    title="Gemma 3 270M, 1B",
    architectures=("Gemma3ForCausalLM",),
    describe=gemma3_spec,
    tensors=dataclasses.replace(GATED_DECODER, norms={**NORMS, **SANDWICH_NORMS, **QK_NORMS}),
    decoder_type="gemma3",
    config_fields=gemma3_fields,
    notes="q and k norms, sandwich norms, local and global rope",
)
