"""Why a server did not start, or ended: what its log says, in a sentence with the lines that show it."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from toolkit import processes
from toolkit.errors import ServerError, TrtkError
from toolkit.serve import ports, triton_log
from toolkit.serve.records import Record
from toolkit.specs import Endpoint


def to_start(record: Record) -> TrtkError:
    """Return why a server ended, or gave up, before it was ready."""
    log = triton_log.read_tail(Path(record.endpoint.log_path), start=record.log_start)
    port = triton_log.busy_port(log)
    if port is not None:
        return ports.busy(record.endpoint.spec, port)
    failure = triton_log.failure(log)
    if failure is not None:
        return explained(record.endpoint, f"Model {failure.model!r} could not be loaded: {failure.reason}.")
    if reason := triton_log.dead_stub(log):
        return explained(record.endpoint, f"A model's Python process could not start: {reason}.")
    return explained(record.endpoint, ended(record))


def ended(record: Record) -> str:
    """Return the sentence that a server ended, and how where that is known."""
    endpoint = record.endpoint
    how = processes.how_it_ended(endpoint.pid, timeout_s=2.0)
    said = triton_log.noted(triton_log.read_tail(Path(endpoint.log_path), start=record.log_start))
    return " ".join(filter(None, [f"The server {endpoint.name!r} (pid {endpoint.pid}) ended{how}.", said]))


def explained(endpoint: Endpoint, message: str, *, hint: str = "") -> ServerError:
    """Return an error with the telling lines of the log."""
    lines = triton_log.telling_lines(triton_log.read_tail(Path(endpoint.log_path)))
    shown = "".join(f"\n  {line}" for line in lines)
    said = f"{message}\nFrom its log, {endpoint.log_path}:{shown}" if lines else message
    return ServerError(said, hint=f"{hint} `trtk logs {quote(endpoint.name)}` shows its log.".strip())
