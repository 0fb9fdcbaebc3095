"""What this machine has, as far as a build asks: looked up by `cli`, passed to those that decide."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LocalGpu:
    """An NVIDIA GPU of this machine, as the driver describes it."""

    uuid: str  # GPU-…: indices change between boots
    title: str  # NVIDIA RTX A4500
    name: str  # in the catalogue; empty for a card that is not in it
    sm: int
    memory_total_mib: int = 0
    memory_free_mib: int = 0


@dataclass(frozen=True, kw_only=True)
class GpuUse:
    """What a GPU of this machine does now; None is what its driver does not say."""

    uuid: str
    title: str
    utilization: float | None  # 0 to 1: the share of the last moment in which a kernel ran
    memory_used_bytes: float | None
    memory_total_bytes: float | None
    power_w: float | None
    energy_j: float | None  # since the driver was loaded


@dataclass(frozen=True, kw_only=True)
class BuildHost:
    """What there is to build with."""

    gpus: tuple[LocalGpu, ...] = ()
    gpu_fault: str = ""  # why no GPU can be seen
    docker_fault: str = ""  # why no Docker daemon can be used; empty: one answers
    trtllm_build: str = ""  # path of a `trtllm-build`; empty: none is on PATH
    trtllm_version: str = ""  # of the TensorRT-LLM that it belongs to; empty: not known


def gpus_for(host: BuildHost, *, name: str, sm: int, count: int) -> tuple[LocalGpu, ...]:
    """Return at most COUNT GPUs that an engine for this card can be compiled on: of its SM, its own kind first."""
    fitting = [gpu for gpu in host.gpus if gpu.sm == sm]
    return tuple(sorted(fitting, key=lambda gpu: gpu.name != name)[:count])
