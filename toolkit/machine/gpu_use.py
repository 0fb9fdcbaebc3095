"""What the GPUs of this machine do, looked at again and again: the driver's library is opened once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolkit.specs.machine import GpuUse


class GpuReader:
    """An open door to the driver; `close` it."""

    def __init__(self, pynvml: Any) -> None:
        self._nvml = pynvml
        count = pynvml.nvmlDeviceGetCount()
        self._handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(count)]

    def read(self) -> tuple[GpuUse, ...]:
        """Return what every GPU does now."""
        return tuple(self._use(handle) for handle in self._handles)

    def close(self) -> None:
        """Let the driver go."""
        self._nvml.nvmlShutdown()

    def _use(self, handle: Any) -> GpuUse:
        nvml = self._nvml
        memory = self._said(nvml.nvmlDeviceGetMemoryInfo, handle)
        rates = self._said(nvml.nvmlDeviceGetUtilizationRates, handle)
        milliwatts = self._said(nvml.nvmlDeviceGetPowerUsage, handle)
        millijoules = self._said(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        return GpuUse(
            uuid=_text(self._said(nvml.nvmlDeviceGetUUID, handle)),
            title=_text(self._said(nvml.nvmlDeviceGetName, handle)),
            utilization=None if rates is None else rates.gpu / 100,
            memory_used_bytes=None if memory is None else float(memory.used),
            memory_total_bytes=None if memory is None else float(memory.total),
            power_w=None if milliwatts is None else milliwatts / 1000,
            energy_j=None if millijoules is None else millijoules / 1000,
        )

    def _said(self, ask: Callable[[Any], Any], handle: Any) -> Any:
        """Return an answer; None where this card or driver has none (MIG slices have no power of their own)."""
        try:
            return ask(handle)
        except self._nvml.NVMLError:
            return None


def open_reader() -> GpuReader | None:
    """Open the driver; None on a machine without one, or without a GPU."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        return GpuReader(pynvml)
    except pynvml.NVMLError:
        pynvml.nvmlShutdown()
        return None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
