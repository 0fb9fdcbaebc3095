"""The `trtllm-build` of this machine, and the TensorRT-LLM that it belongs to."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

PROGRAM = "trtllm-build"
#: Asks the metadata alone: importing tensorrt_llm takes half a minute and wants a GPU.
VERSION_CODE = "from importlib.metadata import version; print(version('tensorrt_llm'))"
TIMEOUT_S = 30


def find() -> tuple[str, str]:
    """Return the path of the trtllm-build on PATH and its version; empty where there is none, or it does not tell."""
    program = shutil.which(PROGRAM)
    if program is None:
        return "", ""
    return program, _version(_interpreter(Path(program)))


def _interpreter(program: Path) -> str:
    """Return the Python that runs a console script."""
    with program.open("rb") as stream:
        first = stream.readline(512).decode(errors="replace").strip()
    words = first.removeprefix("#!").split()
    if first.startswith("#!") and words and "python" in Path(words[0]).name:
        return words[0]
    # `env python3`, or the shell that pip puts before a path that is too long for a first line.
    beside = program.with_name("python3")
    return str(beside) if beside.is_file() else "python3"


def _version(python: str) -> str:
    try:
        asked = subprocess.run(
            [python, "-c", VERSION_CODE], capture_output=True, text=True, timeout=TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return asked.stdout.strip()
