"""Hugging Face safetensors shards, read by memory map one tensor at a time, with every fault named."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BuildError

if TYPE_CHECKING:
    import torch

#: safetensors caps its header at 100 MB.
MAX_HEADER_BYTES = 100_000_000
#: safetensors' names of dtypes.
FLOATS, E4M3 = ("F32", "F16", "BF16"), "F8_E4M3"
INTEGERS = ("I64", "I32", "I16", "I8", "U8")


class Shards:
    """The tensors of a model folder: a single file, or shards with model.safetensors.index.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = _files_of(folder)
        self._headers = {name: read_header(folder / name) for name in self.files}
        self._file_of = _owners(folder, self._headers)
        self._open: dict[str, Any] = {}
        _check_index(folder, self._file_of)

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape from the header alone."""
        return tuple(self._entry(name)["shape"])

    def rows(self, name: str, indices: torch.Tensor) -> torch.Tensor:
        """Return some rows of a matrix without reading the rest."""
        import torch

        matrix = self._file(name).get_slice(name)
        return torch.cat([matrix[int(index) : int(index) + 1] for index in indices])

    def _file(self, name: str) -> Any:
        from safetensors import SafetensorError, safe_open

        self._entry(name)
        file = self._file_of[name]
        if file not in self._open:
            try:
                self._open[file] = safe_open(str(self.folder / file), framework="pt")
            except SafetensorError as error:
                raise BuildError(f"{self.folder / file} is damaged: {error}.", hint=REFETCH) from error
        return self._open[file]

    def tensor(self, name: str) -> torch.Tensor:
        """Return a tensor of 16 or 32 float bits; raises BuildError when it is missing or has a NaN or Inf."""
        if self.dtype(name) not in FLOATS:
            raise BuildError(
                f"{name} in {self._file_of[name]} has dtype {self.dtype(name)}; trtk expects {', '.join(FLOATS)} here.",
                hint="If the model is quantized, its config.json lacks the quantization_config that says how.",
            )
        return self._finite(name)

    def float8(self, name: str) -> torch.Tensor:
        """Return an E4M3 tensor; raises BuildError when it is something else, missing, or has a NaN."""
        if self.dtype(name) != E4M3:
            raise BuildError(f"{name} in {self._file_of[name]} has dtype {self.dtype(name)}; trtk expects {E4M3} here.")
        return self._finite(name)

    def _finite(self, name: str) -> torch.Tensor:
        import torch

        found: torch.Tensor = self._file(name).get_tensor(name)
        if is_finite(found):
            return found
        bad = "NaN" if found.dtype == torch.float8_e4m3fn or torch.isnan(found).any() else "Inf"
        raise BuildError(
            f"{name} in {self.folder / self._file_of[name]} holds a {bad}.",
            hint="Download the shard again; its hash is wrong.",
        )

    def integers(self, name: str) -> torch.Tensor:
        """Return an integer tensor as stored; raises BuildError when it is missing or holds something else."""
        if self.dtype(name) not in INTEGERS:
            raise BuildError(
                f"{name} in {self._file_of[name]} has dtype {self.dtype(name)}; trtk expects integers here.",
                hint="The download is damaged, or config.json belongs to another model.",
            )
        found: torch.Tensor = self._file(name).get_tensor(name)
        return found

    def dtype(self, name: str) -> str:
        """Return a tensor's dtype in safetensors' words: F16, I32, F8_E4M3."""
        return str(self._entry(name)["dtype"])

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._file_of:
            raise BuildError(
                f"{self.folder} has no tensor {name}.",
                hint="The download is incomplete, or config.json belongs to another model.",
            )
        entry: dict[str, Any] = self._headers[self._file_of[name]][name]
        return entry


def is_finite(tensor: torch.Tensor) -> bool:
    """Return whether no element is NaN or Inf: the extremes say it in one pass, at memory speed."""
    import torch

    if not tensor.numel():
        return True
    if tensor.dtype == torch.float8_e4m3fn:  # no Inf in it, and one NaN of either sign
        return not bool(((tensor.view(torch.uint8) & 0x7F) == 0x7F).any())
    low, high = torch.aminmax(tensor)
    return bool(torch.isfinite(low) and torch.isfinite(high))


def read_header(path: Path) -> dict[str, Any]:
    """Return a safetensors header without its metadata, after checking that the file is as long as it says."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else MAX_HEADER_BYTES + 1
        if length > min(MAX_HEADER_BYTES, size - 8):
            raise BuildError(f"{path} is no safetensors file, or is cut short at {size} bytes.", hint=REFETCH)
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            promised = 8 + length + max((int(entry["data_offsets"][1]) for entry in header.values()), default=0)
        except (ValueError, TypeError, AttributeError, LookupError) as error:
            raise BuildError(f"The header of {path} is damaged: {error}.", hint=REFETCH) from error
    if promised != size:
        raise BuildError(
            f"{path} is truncated: its header promises {promised} bytes, the file has {size}.", hint=REFETCH
        )
    return header


REFETCH = "Download this shard again."


def _files_of(folder: Path) -> tuple[str, ...]:
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = tuple(sorted(set(_weight_map(index).values())))
    else:
        names = tuple(sorted(path.name for path in folder.glob("*.safetensors")))
    for name in names:
        if not (folder / name).is_file():
            raise BuildError(f"{folder} lacks the shard {name} that its index names.", hint="Finish the download.")
    return names


def _weight_map(index: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = set(found.values())
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise BuildError(f"{index} is damaged: {error}.", hint="Download it again.") from error
    for name in names:
        # A downloaded index must not make trtk read files of its choice.
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise BuildError(f"{index} names the shard {name!r}, which is no safetensors file of its own folder.")
    return found


def _owners(folder: Path, headers: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the file of every tensor; one that two files hold could be either."""
    owners: dict[str, str] = {}
    for name, header in headers.items():
        for tensor in header:
            if tensor in owners:
                raise BuildError(
                    f"{folder} holds {tensor} twice: in {owners[tensor]} and in {name}.",
                    hint="Keep one set of *.safetensors in the folder.",
                )
            owners[tensor] = name
    return owners


def _check_index(folder: Path, file_of: dict[str, str]) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    for tensor, file in _weight_map(index).items():
        if file_of.get(tensor) != file:
            where = f"it is in {file_of[tensor]}" if tensor in file_of else "no shard has it"
            raise BuildError(f"{index} says that {tensor} is in {file}, but {where}.", hint="Download the model again.")
