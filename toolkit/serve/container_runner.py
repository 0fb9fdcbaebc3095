"""The process that is a container's to `trtk`: it starts it, prints its log, passes SIGTERM on, and ends as it ends.

Run as `python -m toolkit.serve.container_runner` with the container in $TRTK_CONTAINER.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from types import FrameType

from toolkit import containers
from toolkit.containers import ContainerSpec
from toolkit.errors import TrtkError
from toolkit.specs import from_json

SPEC = "TRTK_CONTAINER"


def run(spec: ContainerSpec) -> int:
    """Run the container to its end; return its exit code."""

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        # Not here: this interrupts the reading of the log, which goes on until the container has ended.
        threading.Thread(target=containers.terminate, args=(spec.job,), daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    try:
        with contextlib.closing(containers.connect()) as daemon:
            containers.remove_of(daemon, spec.job)
            ended = containers.run(daemon, spec, on_line=say, on_note=lambda line: say(f"Note: {line}"))
    except TrtkError as error:
        note(str(error))
        return error.exit_code
    if ended.exit_code:
        note(f"The container ended {ended.how}.")
    return ended.exit_code


def say(line: str) -> None:
    """Print a line of the container's log."""
    with contextlib.suppress(OSError):  # a full disk costs the log a line, and nobody a container
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def note(sentence: str) -> None:
    """Say why it ended, beside what is in its log."""
    say(f"trtk: {sentence}")


if __name__ == "__main__":
    sys.exit(run(from_json(ContainerSpec, json.loads(os.environ[SPEC]))))
