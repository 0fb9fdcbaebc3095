"""The text that a checkpoint is judged on, as token ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import UsageError
from toolkit.forward.calibration import file_text, need_known, tokenizer_of
from toolkit.specs import ModelSpec

if TYPE_CHECKING:
    import torch

BUNDLED = Path(__file__).parent / "texts" / "mixed.txt"
#: Tokens of a row when the user says nothing, and the fewest that are worth a figure.
LENGTH, MIN_LENGTH = 512, 16


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """Rows of consecutive tokens; what is None is as much as there is."""

    path: str | None = None  # None: the bundled text
    rows: int | None = None
    length: int | None = None


def token_rows(asked: TextSpec, model_folder: Path, spec: ModelSpec) -> torch.Tensor:
    """Return int64 [rows, length]; raises UsageError when the text is too short for what was asked.

    Each row starts with the model's own first token where its tokenizer gives one: such models answer badly without.
    """
    import torch

    path = Path(asked.path) if asked.path else BUNDLED
    tokenizer = tokenizer_of(model_folder)
    start = [spec.bos_token_id] if spec.bos_token_id in tokenizer.encode("", add_special_tokens=True).ids[:1] else []
    ids = tokenizer.encode(file_text(path), add_special_tokens=False).ids
    length = asked.length or min(LENGTH, spec.max_position_embeddings, max(MIN_LENGTH, len(ids) + len(start)))
    _check_length(length, spec)
    each = length - len(start)
    rows = asked.rows or len(ids) // each
    if rows < 1 or len(ids) < rows * each:
        raise UsageError(
            f"{path.name} has {len(ids)} tokens; {max(rows, 1)} rows of {length} need {max(rows, 1) * each}.",
            hint="Give a longer text with --text, or fewer --rows or a shorter --length.",
        )
    need_known(ids[: rows * each], spec.vocab_size)
    return torch.tensor([start + ids[row * each : (row + 1) * each] for row in range(rows)])


def _check_length(length: int, spec: ModelSpec) -> None:
    longest = spec.max_position_embeddings
    if length > longest:
        raise UsageError(
            f"--length {length} is beyond the model's {longest} positions.", hint=f"Try --length {longest}."
        )
