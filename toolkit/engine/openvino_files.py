"""OpenVINO models on disk, whole or with an error that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.errors import MissingError
from toolkit.files import free_bytes


def save_ir(model: Any, path: Path, *, is_float16: bool = False) -> None:
    """Write an .xml and .bin pair and read it back; OpenVINO reports a full disk as a stream error, or not at all."""
    import openvino

    try:
        openvino.save_model(model, str(path), compress_to_fp16=is_float16)
        openvino.Core().read_model(str(path))
    except RuntimeError as error:
        raise MissingError(
            f"OpenVINO could not write {path}; the disk has {free_bytes(path) / 1e6:.0f} MB left.",
            hint="Free space, or give another folder with -o; the work so far is kept.",
        ) from error
