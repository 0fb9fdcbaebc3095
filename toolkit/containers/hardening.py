"""How every container that serves is run, whoever starts it."""

from __future__ import annotations

#: What NVIDIA's images ask for in their banner: pinned memory without a limit, stacks of 64 MiB.
ULIMITS = {"memlock": -1, "stack": 64 << 20}
#: Executable, because Triton's and torch's compilers load what they write there.
TMPFS = {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=8g"}
#: What the daemon keeps of a log: all of it is in the server's own.
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
