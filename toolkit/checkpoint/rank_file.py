"""A checkpoint's rank{r}.safetensors, written tensor by tensor, resumable at the last whole layer."""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from toolkit.files import disk_errors_named

if TYPE_CHECKING:
    import torch

#: Room for one tensor's entry in the header: name, dtype, shape and offsets.
HEADER_BYTES_PER_TENSOR = 192
DTYPE_NAMES = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.int8": "I8",
    "torch.uint8": "U8",
    "torch.float8_e4m3fn": "F8_E4M3",
}


class RankFile:
    """Appends tensors after a header of fixed size, which is filled in at the end.

    safetensors allows a header padded with spaces, so nothing has to be known or written twice. A journal beside the
    file has one line per finished step; opening an interrupted file cuts it back to the last line.
    """

    def __init__(self, path: Path, *, max_tensors: int) -> None:
        self.path = path
        self.journal_path = path.with_suffix(".journal")
        self.header_bytes = 8 * ((max_tensors * HEADER_BYTES_PER_TENSOR + 7) // 8)
        self._entries: dict[str, dict[str, Any]] = {}
        self.finished_steps: list[str] = []
        self._offset = 0
        self._replay_journal()
        with disk_errors_named(path):
            self._stream: BinaryIO = path.open("r+b" if path.exists() else "w+b")
            self._stream.truncate(8 + self.header_bytes + self._offset)
            self._stream.seek(0, os.SEEK_END)

    def _replay_journal(self) -> None:
        if not (self.journal_path.is_file() and self.path.is_file()):
            self.journal_path.unlink(missing_ok=True)
            return
        for line in self.journal_path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):  # the last line may be cut
                step = json.loads(line)
                self.finished_steps.append(step["step"])
                self._entries.update(step["tensors"])
                self._offset = step["end"]

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Group appended tensors: either all of them are in the journal, or none is."""
        before = set(self._entries)
        yield
        with disk_errors_named(self.path):
            self._stream.flush()
            os.fsync(self._stream.fileno())
            tensors = {key: value for key, value in self._entries.items() if key not in before}
            line = json.dumps({"step": name, "tensors": tensors, "end": self._offset})
            with self.journal_path.open("a", encoding="utf-8") as journal:
                journal.write(line + "\n")
                journal.flush()
                os.fsync(journal.fileno())
        self.finished_steps.append(name)

    def append(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Write tensors at the end of the file."""
        import torch

        for name, tensor in tensors.items():
            plain = tensor.detach().to("cpu").contiguous()
            data = plain.reshape(-1).view(torch.uint8).numpy()
            end = self._offset + data.nbytes
            self._entries[name] = {
                "dtype": DTYPE_NAMES[str(plain.dtype)],
                "shape": list(plain.shape),
                "data_offsets": [self._offset, end],
            }
            with disk_errors_named(self.path):
                self._stream.write(memoryview(data))
            self._offset = end

    def finish(self) -> None:
        """Write the header and drop the journal."""
        header = json.dumps({"__metadata__": {"format": "pt"}, **self._entries}, separators=(",", ":")).encode()
        assert len(header) <= self.header_bytes, "HEADER_BYTES_PER_TENSOR is too small for these names"
        with disk_errors_named(self.path):
            self._stream.seek(0)
            self._stream.write(struct.pack("<Q", self.header_bytes) + header.ljust(self.header_bytes))
            self._stream.flush()
            os.fsync(self._stream.fileno())
        self.close()
        self.journal_path.unlink()

    def close(self) -> None:
        """Close without finishing: what the journal has can be resumed."""
        with disk_errors_named(self.path):
            self._stream.close()
