"""What activations are measured on: token ids of a text file, and their hidden states layer by layer."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.errors import BuildError, UsageError
from toolkit.forward.decoder import Decoder
from toolkit.quant.statistics import InputStatistics, Wanted
from toolkit.specs import CalibrationSpec, ModelSpec
from toolkit.weights import Layer

if TYPE_CHECKING:
    import torch

#: Samples that go through a layer together: bounds the activations of one pass.
SAMPLES_AT_ONCE = 4


def from_file(calibration: CalibrationSpec, tokenizer_json: Path, vocab_size: int) -> torch.Tensor:
    """Return int64 [samples, length]: consecutive pieces of a text file, or of a JSONL file's `text` fields."""
    import torch
    from tokenizers import Tokenizer

    text = file_text(Path(calibration.source))
    ids = Tokenizer.from_file(str(tokenizer_json)).encode(text, add_special_tokens=False).ids
    needed = calibration.samples * calibration.length
    if len(ids) < needed:
        raise UsageError(
            f"{calibration.source} has {len(ids)} tokens; {calibration.samples} samples of {calibration.length} "
            f"need {needed}.",
            hint=f"Give more text, or --calib-samples {len(ids) // calibration.length}.",
        )
    if max(ids[:needed]) >= vocab_size:
        raise BuildError(f"The tokenizer makes ids beyond the model's vocabulary of {vocab_size}.")
    return torch.tensor(ids[:needed]).view(calibration.samples, calibration.length)


def file_text(path: Path) -> str:
    """Return a text file's content, or the `text` fields of a JSONL file, one after another."""
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"There is no calibration file {path}.", hint="--calib takes `self` or a file.") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text.", hint="--calib takes a text or JSONL file.") from error
    if path.suffix != ".jsonl":
        return content
    try:
        return "\n".join(json.loads(line)["text"] for line in content.splitlines() if line.strip())
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not JSONL with a `text` field in every line: {error}.") from error


class CalibrationPass:
    """Hidden states [samples, length, hidden] of the calibration tokens, carried from layer to layer."""

    def __init__(self, spec: ModelSpec, hidden: torch.Tensor) -> None:
        self.decoder = Decoder(spec, max_length=hidden.shape[1], device=str(hidden.device))
        self.hidden = hidden

    def through(self, layer: Layer, wanted: Mapping[str, Wanted]) -> dict[str, InputStatistics]:
        """Run the hidden states through a layer; return what was wanted of the inputs of each group of linears."""
        statistics = {
            group: InputStatistics(f"layer {layer.index} {group}", kinds) for group, kinds in wanted.items() if kinds
        }

        def tap(group: str, inputs: torch.Tensor) -> None:
            if group in statistics:
                statistics[group].add(inputs)

        for start in range(0, self.hidden.shape[0], SAMPLES_AT_ONCE):
            rows = slice(start, start + SAMPLES_AT_ONCE)
            self.hidden[rows] = self.decoder.layer(layer, self.hidden[rows], tap=tap)
        return statistics
