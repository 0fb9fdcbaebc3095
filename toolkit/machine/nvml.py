"""NVIDIA's management library: the driver, and the GPUs that it drives."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from toolkit import gpus
from toolkit.errors import UnknownName
from toolkit.specs.machine import LocalGpu

#: A card's memory as NVML counts it is a little less than its nominal size; other cards of the name differ by more.
MEMORY_TOLERANCE = 0.15


@dataclass(frozen=True, kw_only=True)
class Nvml:
    """What the driver says; FAULT where it cannot be asked."""

    gpus: tuple[LocalGpu, ...] = ()
    driver: str = ""  # 590.44.01
    cuda: str = ""  # 13.1: the newest that the driver knows
    fault: str = ""
    hint: str = ""


def look() -> Nvml:
    """Ask the driver; a machine without one is an answer, no error."""
    try:
        import pynvml
    except ImportError:
        return Nvml(fault="the package nvidia-ml-py is not installed", hint="pip install nvidia-ml-py")
    try:
        with _opened(pynvml):
            count = pynvml.nvmlDeviceGetCount()
            version = pynvml.nvmlSystemGetCudaDriverVersion_v2()
            return Nvml(
                gpus=tuple(_gpu(pynvml, pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(count)),
                driver=_text(pynvml.nvmlSystemGetDriverVersion()),
                cuda=f"{version // 1000}.{version % 1000 // 10}",
            )
    except pynvml.NVMLError as error:
        return _faulty(pynvml, error)


@contextlib.contextmanager
def _opened(pynvml: Any) -> Iterator[None]:
    pynvml.nvmlInit()
    try:
        yield
    finally:
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, handle: Any) -> LocalGpu:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    title, total_mib = _text(pynvml.nvmlDeviceGetName(handle)), memory.total >> 20
    sm = 10 * major + minor
    return LocalGpu(
        uuid=_text(pynvml.nvmlDeviceGetUUID(handle)),
        title=title,
        name=catalogue_name(title, sm=sm, memory_mib=total_mib),
        sm=sm,
        memory_total_mib=total_mib,
        memory_free_mib=memory.free >> 20,
    )


def catalogue_name(title: str, *, sm: int, memory_mib: int) -> str:
    """Return what the catalogue calls a card; empty for a stranger.

    Words behind the name are passed over (`NVIDIA B300 SXM6 AC`), but SM and memory must be those of the card that is
    found: an `RTX 4090 Laptop GPU` is no rtx-4090.
    """
    words = title.split()
    for count in range(len(words), 0, -1):
        with contextlib.suppress(UnknownName):
            spec = gpus.get(" ".join(words[:count]))
            if spec.sm == sm and abs(spec.memory_gib * 1024 - memory_mib) <= MEMORY_TOLERANCE * memory_mib:
                return spec.name
    return ""


def _faulty(pynvml: Any, error: Any) -> Nvml:
    known = {
        pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: (
            "no NVIDIA driver is installed",
            "Install the driver on a machine with an NVIDIA GPU; without one use --gpu cpu.",
        ),
        pynvml.NVML_ERROR_DRIVER_NOT_LOADED: (
            "the NVIDIA driver is not loaded",
            "sudo modprobe nvidia; `dmesg | grep -i nvrm` says why it stays away.",
        ),
        pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
            "the driver's library and kernel module are of different versions",
            "Reboot: the driver was updated while the old one was loaded.",
        ),
        pynvml.NVML_ERROR_NO_PERMISSION: (
            "there is no permission to ask the driver",
            "Check the modes of /dev/nvidia*.",
        ),
    }
    fault, hint = known.get(
        error.value,
        (
            f"the driver's library says {str(error).rstrip('.')!r}",
            "In a container: start it anew, its GPUs may have been taken away (systemctl daemon-reload does that).",
        ),
    )
    return Nvml(fault=fault, hint=hint)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
