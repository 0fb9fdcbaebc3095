"""How much of a model survived quantization: a checkpoint and its original on the same text."""

from __future__ import annotations

from pathlib import Path

from toolkit import models
from toolkit.evaluate.comparison import Comparison
from toolkit.evaluate.opening import open_checkpoint, open_original
from toolkit.evaluate.text import TextSpec, token_rows
from toolkit.forward.device import need_device
from toolkit.specs import Evaluation, ModelSource, Progress, no_progress

__all__ = ["TextSpec", "run"]


def run(
    checkpoint: Path,
    source: ModelSource,
    text: TextSpec | None = None,
    *,
    device: str = "cpu",
    progress: Progress = no_progress,
) -> Evaluation:
    """Compare CHECKPOINT with the model it was made from, in the arithmetic of its own formats.

    Raises UsageError for what is no checkpoint of this model, BuildError for damaged files.
    """
    import torch

    need_device(device)
    spec = models.read(source)
    opened = open_checkpoint(checkpoint, spec, device=device)
    base = open_original(source, spec, device=device)
    ids = token_rows(text or TextSpec(), Path(source.path), spec)
    with torch.inference_mode():
        return Comparison(spec, ids, kv_cache_algo=opened.kv_cache).run(base, opened, progress)
