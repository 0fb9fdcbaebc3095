"""Stop a foreground server when the trtk that owns it goes away, however it goes.

Run as `python -m toolkit.serve.watcher NAME SERVER_ID` with a pipe as stdin whose other end only the owner holds:
the kernel closes that end even on kill -9.
"""

from __future__ import annotations

import os
import sys

from toolkit.serve import records, stopping


def watch(name: str, server_id: str) -> None:
    """Wait until the owner is gone, then stop its server if that is still there."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    record = records.read(name)
    if record is not None and record.server_id == server_id:
        stopping.stop_recorded(record)


if __name__ == "__main__":
    watch(sys.argv[1], sys.argv[2])
