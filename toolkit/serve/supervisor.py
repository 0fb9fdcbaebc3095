"""Supervise a detached server: what it does is in the server's log.

Run as `python -m toolkit.serve.supervisor NAME SERVER_ID`.
"""

from __future__ import annotations

import contextlib
import datetime
import sys

from toolkit.errors import TrtkError
from toolkit.serve import records, supervising


def say(line: str) -> None:
    """Write a line into the server's log, which is this process's output."""
    when = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    with contextlib.suppress(OSError):  # a full disk costs the log a line, and nobody a server
        sys.stderr.write(f"{when} trtk: {line}\n")
        sys.stderr.flush()


def main(name: str, server_id: str) -> int:
    """Supervise until the server is stopped, or has failed too often."""
    record = records.read(name)
    if record is None or record.server_id != server_id:
        return 0
    try:
        supervising.supervise(record.endpoint, say=say)
    except TrtkError as error:
        say(f"{str(error).splitlines()[0]} It is not started again.")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
