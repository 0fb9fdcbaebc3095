"""What this machine has: GPUs and driver, Docker, disk, memory, ports, packages; and what of it is missing."""

from toolkit.machine.checks import FAIL, OK, WARN, Check, judge
from toolkit.machine.facts import Facts, look_around, look_at_docker
from toolkit.machine.nvml import Nvml, look

__all__ = ["FAIL", "OK", "WARN", "Check", "Facts", "Nvml", "judge", "look", "look_around", "look_at_docker"]
