"""One safetensors file of a checkpoint, read by memory map, whatever its dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.shards import read_header
from toolkit.errors import BuildError

if TYPE_CHECKING:
    import torch

FLOATS = {"F64", "F32", "F16", "BF16"}
#: What to do about a damaged checkpoint.
AGAIN = "Quantize the model again, or copy the checkpoint again."


class TensorFile:
    """Tensors by name; a missing, truncated or damaged file is a BuildError that names it."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        if not path.is_file():
            raise BuildError(f"{path.parent} lacks {path.name}, which its config.json asks for.", hint=AGAIN)
        try:
            self._header = read_header(path)
        except BuildError as error:
            raise BuildError(str(error), hint=AGAIN) from error
        self._file: Any = safe_open(str(path), framework="pt")

    def __contains__(self, name: str) -> bool:
        return name in self._header

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape."""
        return tuple(self._entry(name)["shape"])

    def is_float(self, name: str) -> bool:
        """Return whether a tensor has 16 or more float bits."""
        return self._entry(name)["dtype"] in FLOATS

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor as stored."""
        self._entry(name)
        found: torch.Tensor = self._file.get_tensor(name)
        return found

    def rows(self, name: str, indices: torch.Tensor) -> torch.Tensor:
        """Return some rows of a matrix without reading the rest."""
        import torch

        self._entry(name)
        matrix = self._file.get_slice(name)
        return torch.cat([matrix[int(index) : int(index) + 1] for index in indices])

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return every tensor whose name starts with PREFIX and has no further dot, by the rest of the name."""
        names = [name for name in self._header if name.startswith(prefix)]
        return {name.removeprefix(prefix): self.tensor(name) for name in names if "." not in name.removeprefix(prefix)}

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._header:
            raise BuildError(f"{self.path} has no tensor {name}.", hint=AGAIN)
        entry: dict[str, Any] = self._header[name]
        return entry
