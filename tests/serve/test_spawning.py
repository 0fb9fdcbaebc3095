"""A server gets its standard streams and nothing else that happened to be open."""

import os
import signal
import time
from pathlib import Path

from toolkit.serve.spawning import spawn


def open_in(pid):
    return {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_lock_of_the_shell_is_not_held_by_the_server(tmp_path):
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    os.set_inheritable(lock, True)
    process = spawn(["sleep", "60"], dict(os.environ), log=tmp_path / "log")
    try:
        deadline = time.monotonic() + 20
        while not Path(f"/proc/{process.pid}/cmdline").read_bytes().startswith(b"sleep"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert open_in(process.pid) == {"/dev/null", str(tmp_path / "log")}
        os.fstat(lock)  # here it is as it was
    finally:
        os.kill(process.pid, signal.SIGKILL)
        os.waitpid(process.pid, 0)
        os.close(lock)
