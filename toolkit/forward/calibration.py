"""What activations are measured on: token ids of a text file, and their hidden states layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BuildError, PlanInfeasible, UsageError
from toolkit.forward.decoder import Decoder
from toolkit.forward.texts import chat_of, documents
from toolkit.models import hub_text
from toolkit.quant.statistics import InputStatistics, Wanted
from toolkit.specs import CalibrationSpec, ModelSpec
from toolkit.weights import Layer

if TYPE_CHECKING:
    import torch

#: Samples that go through a layer together: bounds the activations of one pass.
SAMPLES_AT_ONCE = 4
CHARACTERS_PER_TOKEN = 8


def tokenizer_json(folder: Path) -> Path:
    """Return the fast tokenizer's file of a model; raises PlanInfeasible when it has none."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise PlanInfeasible(
            f"{folder} has no tokenizer.json.",
            hint="Save the fast tokenizer into the folder with AutoTokenizer's save_pretrained.",
        )
    return path


def tokenizer_of(folder: Path) -> Any:
    """Return the fast tokenizer of a model; raises BuildError where its file is none."""
    from tokenizers import Tokenizer

    path = tokenizer_json(folder)
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise BuildError(f"{path} is no tokenizer: {error}.", hint="Download it again.") from error


def need_known(ids: Sequence[int], vocab_size: int) -> None:
    """Raise BuildError for a token id that the model's embedding has no row of."""
    if max(ids) >= vocab_size:
        raise BuildError(
            f"The tokenizer makes the id {max(ids)}, beyond the model's vocabulary of {vocab_size}.",
            hint="tokenizer.json and config.json are of different models.",
        )


def from_text(calibration: CalibrationSpec, folder: Path, vocab_size: int) -> torch.Tensor:
    """Return int64 [samples, length]: consecutive pieces of a file's or a hub data set's documents."""
    import torch

    tokenizer = tokenizer_of(folder)
    needed = calibration.samples * calibration.length
    ids = _ids(tokenizer, _documents(calibration.source, folder), needed)
    if len(ids) < needed:
        possible = len(ids) // calibration.length
        raise UsageError(
            f"{calibration.source} has {len(ids)} tokens; {calibration.samples} samples of {calibration.length} "
            f"need {needed}.",
            hint=f"Give more text, or --calib-samples {possible}." if possible else "Give more text.",
        )
    need_known(ids[:needed], vocab_size)
    return torch.tensor(ids[:needed]).view(calibration.samples, calibration.length)


def _documents(source: str, tokenizer_dir: Path) -> Iterator[str]:
    if not source.startswith(hub_text.PREFIX):
        yield from documents(Path(source), chat=chat_of(tokenizer_dir))
        return
    for path in hub_text.files(source):
        yield from documents(path, column=hub_text.parse(source).column, chat=chat_of(tokenizer_dir))


def _ids(tokenizer: Any, texts: Iterator[str], needed: int) -> list[int]:
    """Return ids of documents, a line break between them, reading on while there are too few."""
    read: list[str] = []
    ids: list[int] = []
    while len(ids) < needed:
        # Most tokens have fewer characters; a file of gigabytes is not read to its end.
        more = list(_of_characters(texts, CHARACTERS_PER_TOKEN * (needed - len(ids))))
        if not more:
            break
        read += more
        ids = tokenizer.encode("\n".join(read), add_special_tokens=False).ids
    return ids


def _of_characters(texts: Iterator[str], enough: int) -> Iterator[str]:
    for text in texts:
        yield text
        enough -= len(text)
        if enough <= 0:
            return


def file_text(path: Path) -> str:
    """Return a text file's content, or the documents of a JSONL or Parquet file, one after another."""
    return "\n".join(documents(path))


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
