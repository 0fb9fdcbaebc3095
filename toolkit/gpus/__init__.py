"""What we know about GPUs: one TOML file each. Measured usable memory is a reading from a card."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from toolkit.errors import UnknownName
from toolkit.registry import by_name, toml_entry
from toolkit.specs import GpuSpec

FOLDER = Path(__file__).parent
#: Words that nvidia-smi, shops and people put before the part of a name that tells cards apart.
LEADING_WORDS = ("nvidia", "geforce", "tesla", "quadro", "jetson", "rtx")


def read(path: Path) -> GpuSpec:
    """Return the GPU that one TOML file describes; a key that GpuSpec does not have is an error."""
    return toml_entry(path, GpuSpec)


def read_all(folder: Path) -> tuple[GpuSpec, ...]:
    """Return the GPUs of a folder, by compute capability, memory and name."""
    found = [read(path) for path in folder.glob("*.toml")]
    return tuple(sorted(found, key=lambda gpu: (gpu.sm, gpu.memory_gib, gpu.name)))


@functools.cache
def catalogue() -> tuple[GpuSpec, ...]:
    """Return every GPU that trtk knows, and `cpu`."""
    return read_all(FOLDER)


def get(name: str) -> GpuSpec:
    """Return the GPU called NAME, however it is spelled: `a4500`, `rtx-a4500` and `NVIDIA RTX A4500` are one card."""
    table = _by_key()
    if _key(name) not in table:
        raise UnknownName("GPU", _short(name), (gpu.name for gpu in catalogue()), command="trtk gpus")
    return table[_key(name)]


def index(gpus: tuple[GpuSpec, ...]) -> dict[str, GpuSpec]:
    """Return the GPUs by everything that finds them; a spelling that two of them claim is an error."""
    return by_name(gpus, lambda gpu: {_key(name) for name in (gpu.name, gpu.title, *gpu.aliases)})


@functools.cache
def _by_key() -> dict[str, GpuSpec]:
    return index(catalogue())


def _short(name: str) -> str:
    words = re.findall(r"[a-z0-9]+", name.lower())
    while len(words) > 1 and words[0] in LEADING_WORDS:
        words = words[1:]
    return "-".join(words)


def _key(name: str) -> str:
    """Squeeze a name to what tells cards apart: `RTXA4500` and `rtx a4500` both become `a4500`."""
    key = _short(name).replace("-", "")
    for word in LEADING_WORDS:
        key = key.removeprefix(word) or key
    return key
