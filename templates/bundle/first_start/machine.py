"""Is this the right image, and are the GPUs ones that can run this?"""

import contextlib
import ctypes
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from first_start import INFEASIBLE, MISSING, Refused

#: Attributes of CUdevice_attribute: compute capability, major and minor.
CUDA_MAJOR, CUDA_MINOR = 75, 76


class Gpu(NamedTuple):
    """A GPU that this container sees."""

    name: str
    sm: int
    memory_bytes: int


def need_release(bundle: dict[str, Any]) -> None:
    found = installed("tensorrt_llm")
    wanted = bundle["tensorrt_llm"]
    if found is None:
        raise Refused("This image has no TensorRT-LLM.", hint=f"Run it in {bundle['image']}.", code=MISSING)
    if found != wanted:
        raise Refused(
            f"This bundle is for TensorRT-LLM {wanted}; this image has {found}.",
            hint=f"Run it in {bundle['image']}, or build the bundle with --release of this image.",
            code=MISSING,
        )


def installed(package: str) -> str | None:
    """Return a package's version: from this Python, else from the one that runs trtllm-build."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    program = shutil.which("trtllm-build")
    first = Path(program).open("rb").readline().decode(errors="replace") if program else ""  # noqa: SIM115
    python = re.fullmatch(r"#!\s*(\S*python\S*)\s*", first)
    if not python or python[1] == sys.executable:
        return None
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    done = subprocess.run([python[1], "-c", code], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def tensorrt_version(bundle: dict[str, Any]) -> str:
    """Return the image's TensorRT version; the release's where the image does not tell."""
    for package in ("tensorrt", "tensorrt_cu13", "tensorrt_cu12"):
        if found := installed(package):
            return release_part(found)
    return release_part(os.environ.get("TRT_VERSION") or bundle["tensorrt"])


def release_part(version: str) -> str:
    """Return 10.14.1.48 of 10.14.1.48.post1 and of 10.14.1.48+cuda13.0."""
    found = re.match(r"\d+(\.\d+)*", version)
    return found[0] if found else version


def need_gpus(bundle: dict[str, Any], here: int | None = None) -> Gpu:
    """Return the first GPU; raise unless there are enough that can run this: HERE, where other nodes have the rest."""
    gpus, ranks = visible_gpus(), here or bundle["world_size"] * bundle.get("instances", 1)
    if len(gpus) < ranks:
        raise Refused(
            f"This bundle needs {ranks} GPU{'s' * (ranks > 1)}; this container sees {len(gpus)}.",
            hint="Start it with --gpus all (Docker) and check nvidia-smi.",
            code=MISSING,
        )
    first = gpus[0]
    if any(gpu.sm != first.sm for gpu in gpus[:ranks]):
        found = ", ".join(f"{gpu.name} (sm_{gpu.sm})" for gpu in gpus[:ranks])
        raise Refused(
            f"The ranks of one engine run on one kind of GPU; here are {found}.",
            hint="Choose equal ones with --gpus 'device=…' or CUDA_VISIBLE_DEVICES.",
            code=MISSING,
        )
    if str(first.sm) not in bundle["commands"]:
        known = ", ".join(f"sm_{sm}" for sm in sorted(bundle["commands"], key=int))
        raise Refused(
            f"{bundle['quant']} in the {bundle['flow']} flow runs on {known}; {first.name} is sm_{first.sm}.",
            hint="Build a bundle for this card: trtk build … --gpu; `trtk quants` shows what it can run.",
            code=INFEASIBLE,
        )
    if first.memory_bytes and first.memory_bytes < bundle["rank_weights_bytes"]:
        raise Refused(
            f"A rank's weights take {bundle['rank_weights_bytes'] / 2**30:.1f} GiB; {first.name} has "
            f"{first.memory_bytes / 2**30:.1f} GiB.",
            hint="Use more ranks (--tp) or fewer bits (--quant).",
            code=INFEASIBLE,
        )
    return first


def visible_gpus() -> list[Gpu]:
    """Ask the CUDA driver, which heeds CUDA_VISIBLE_DEVICES; else nvidia-smi."""
    found = from_driver()
    return from_nvidia_smi() if found is None else found


def from_driver() -> list[Gpu] | None:
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    count = ctypes.c_int()
    if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)):
        return None
    return [device(cuda, index) for index in range(count.value)]


def device(cuda: ctypes.CDLL, index: int) -> Gpu:
    handle, value, size = ctypes.c_int(), ctypes.c_int(), ctypes.c_size_t()
    name = ctypes.create_string_buffer(128)
    cuda.cuDeviceGet(ctypes.byref(handle), index)
    cuda.cuDeviceGetName(name, len(name), handle)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(size), handle)
    numbers = []
    for attribute in (CUDA_MAJOR, CUDA_MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(value), attribute, handle)
        numbers.append(value.value)
    return Gpu(name.value.decode(errors="replace"), 10 * numbers[0] + numbers[1], size.value)


def from_nvidia_smi() -> list[Gpu]:
    asked = ["nvidia-smi", "--query-gpu=compute_cap,memory.total,name", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    rows = [line.split(", ", 2) for line in done.stdout.splitlines() if done.returncode == 0]
    return [
        Gpu(name, int(capability.replace(".", "")), int(memory) << 20 if memory.isdigit() else 0)
        for capability, memory, name in rows
    ]
