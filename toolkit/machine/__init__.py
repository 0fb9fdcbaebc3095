"""What this machine has: GPUs and driver, Docker, disk, memory, ports, packages. It only looks."""

from toolkit.machine.nvml import Nvml, look

__all__ = ["Nvml", "look"]
