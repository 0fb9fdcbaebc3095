"""A TensorRT-LLM checkpoint as numpy arrays, by memory map."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import BuildError

if TYPE_CHECKING:
    import numpy as np

NUMPY_DTYPES = {"F32": "<f4", "F16": "<f2", "I8": "i1", "U8": "u1", "BF16": "<u2", "F8_E4M3": "u1"}


class CheckpointReader:
    """config.json and the tensors of rank 0."""

    def __init__(self, folder: Path) -> None:
        import numpy as np

        self.folder = folder
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        path = folder / "rank0.safetensors"
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            self._entries: dict[str, dict[str, Any]] = json.loads(stream.read(length))
        self._data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return a tensor as stored; bfloat16 becomes float32, which holds it exactly."""
        import numpy as np

        if name not in self._entries:
            raise BuildError(f"{self.folder} has no tensor {name}.", hint="Run `trtk quantize` again.")
        entry = self._entries[name]
        start, end = entry["data_offsets"]
        plain: np.ndarray[Any, Any] = (
            self._data[start:end].view(np.dtype(NUMPY_DTYPES[entry["dtype"]])).reshape(entry["shape"])
        )
        if entry["dtype"] == "BF16":
            plain = (plain.astype(np.uint32) << 16).view(np.float32)
        return plain
