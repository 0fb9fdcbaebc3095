"""A TensorRT-LLM checkpoint of one rank as numpy arrays, by memory map."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.engine.module_formats import ModuleFormats
from toolkit.errors import BuildError, PlanInfeasible

if TYPE_CHECKING:
    import numpy as np

NUMPY_DTYPES = {"F32": "<f4", "F16": "<f2", "I8": "i1", "U8": "u1", "BF16": "<u2", "F8_E4M3": "u1"}


class CheckpointReader:
    """config.json, the format of each module, and the tensors of rank 0."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        _need_one_rank(folder, self.config)
        self.formats = ModuleFormats.read(folder, self.config)
        path = folder / "rank0.safetensors"
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            self._entries: dict[str, dict[str, Any]] = json.loads(stream.read(length))
        self._entries.pop("__metadata__", None)
        self._data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
        self._unread = set(self._entries)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def dtype(self, name: str) -> str:
        """Return a tensor's type in safetensors' words."""
        return str(self._entry(name)["dtype"])

    def stored(self, name: str) -> np.ndarray[Any, Any]:
        """Return a tensor as stored; what numpy has no type for comes as its bits."""
        import numpy as np

        entry = self._entry(name)
        self._unread.discard(name)
        start, end = entry["data_offsets"]
        plain: np.ndarray[Any, Any] = self._data[start:end].view(np.dtype(NUMPY_DTYPES[entry["dtype"]]))
        return plain.reshape(entry["shape"])

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return a tensor as stored; bfloat16 becomes float32, which holds it exactly."""
        import numpy as np

        plain = self.stored(name)
        return (plain.astype(np.uint32) << 16).view(np.float32) if self.dtype(name) == "BF16" else plain

    def need_all_read(self) -> None:
        """Raise PlanInfeasible when the file has tensors that nobody asked for: they would have changed the result."""
        if self._unread:
            names = sorted(self._unread)
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise PlanInfeasible(
                f"The CPU engine would leave out {', '.join(names[:3])}{more}, which {self.folder} has.",
                hint="The checkpoint has something that its architecture, as trtk knows it, has not.",
            )

    def _entry(self, name: str) -> dict[str, Any]:
        if name not in self._entries:
            raise BuildError(f"{self.folder} has no tensor {name}.", hint="Run `trtk quantize` again.")
        return self._entries[name]


def _need_one_rank(folder: Path, config: dict[str, Any]) -> None:
    mapping = config.get("mapping") or {}
    tp, pp = int(mapping.get("tp_size", 1)), int(mapping.get("pp_size", 1))
    if tp * pp > 1:
        raise PlanInfeasible(
            f"{folder} is divided among {tp * pp} ranks (tp {tp}, pp {pp}); the CPU engine is one rank.",
            hint="Quantize again with --tp 1 --pp 1.",
        )
