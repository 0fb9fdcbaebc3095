"""Which servers are there, and how they are: the record says who, /proc says whether, the server says how."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from toolkit import processes
from toolkit.errors import UsageError
from toolkit.serve import backend, companions, records, triton_http
from toolkit.serve.records import NOT_STARTED, CompanionRecord, Record
from toolkit.serve.starting import models_in
from toolkit.specs import Endpoint


@dataclass(frozen=True, kw_only=True)
class CompanionStatus:
    """A further process of a server as it is now."""

    name: str
    pid: int
    state: str  # ready, not ready, dead
    restarts: int
    url: str


@dataclass(frozen=True, kw_only=True)
class ServerStatus:
    """A server as it is now."""

    endpoint: Endpoint
    state: str  # ready, not ready, dead
    uptime_s: float
    models: tuple[str, ...]  # that are ready
    problem: str = ""  # why it is not ready, where that is known
    companions: tuple[CompanionStatus, ...] = ()
    restarts: int = 0  # since it was first started, its companions' included
    last_failure: str = ""  # the sentence of the last one
    is_supervised: bool = False  # somebody is there who starts it again
    container: str = ""  # its id, where it runs in one


def running() -> tuple[ServerStatus, ...]:
    """Return every server that was started and not stopped; one that died is among them, as dead."""
    return tuple(_status(record) for record in records.read_all())


def is_running(endpoint: Endpoint) -> bool:
    """Whether exactly this server still lives."""
    record = records.read(endpoint.name)
    return record is not None and record.endpoint.pid == endpoint.pid and record.is_alive


def only_name() -> str:
    """Return the name of the one server there is; with none or several, a name has to be given."""
    names = [record.endpoint.name for record in records.read_all()]
    if not names:
        raise UsageError("No server is running.", hint="`trtk serve` starts one.")
    if len(names) > 1:
        raise UsageError(
            f"There are {len(names)} servers: {', '.join(names)}.", hint=f"Name one, as in: {quote(names[0])}"
        )
    return names[0]


def log_path(name: str) -> Path:
    """Return a server's log; it can be read after the server is gone."""
    path = records.log_file(name)
    if not path.is_file():
        raise UsageError(f"There is no server named {name!r}, and no log of one.", hint="`trtk status` lists servers.")
    return path


def _status(record: Record) -> ServerStatus:
    is_started = record.is_alive and record.endpoint.pid != NOT_STARTED
    url = record.endpoint.http_url
    found = tuple(_companion(record, one) for one in record.companions)
    inside = backend.pick(record.endpoint.spec.backend).look(record.server_id) if is_started else backend.Inside()
    problem = (_problem(record, found) or inside.problem) if record.is_held else ""
    is_ready = is_started and not problem and triton_http.is_ready(url, record.server_id)
    return ServerStatus(
        endpoint=record.endpoint,
        state="ready" if is_ready else "not ready" if record.is_held else "dead",
        uptime_s=round(processes.uptime_s(record.process), 1) if is_started else 0.0,
        models=triton_http.models(url, models_in(Path(record.endpoint.spec.repository))) if is_ready else (),
        problem=problem,
        companions=found,
        restarts=record.restarts,
        last_failure=record.last_failure,
        is_supervised=record.is_supervised and processes.is_alive(record.owner),
        container=inside.container,
    )


def _companion(record: Record, one: CompanionRecord) -> CompanionStatus:
    spec = companions.spec_of(record, one.name)
    is_alive = processes.is_alive(one.process)
    state = "dead" if not is_alive else "ready" if companions.is_ready(spec) else "not ready"
    return CompanionStatus(name=one.name, pid=one.pid, state=state, restarts=one.restarts, url=spec.url)


def _problem(record: Record, found: tuple[CompanionStatus, ...]) -> str:
    if record.is_stopping:
        return "it is being stopped"
    # Until the probe answers, its starter says so; when that is gone, Triton's own word counts.
    if not record.is_ready and processes.is_alive(record.owner):
        return "it failed and is being started again" if record.failures else "it is still starting"
    if not record.is_alive:
        return f"its process (pid {record.endpoint.pid}) died"
    # 2.51 goes on calling itself ready when a stub is gone, and answers every request of that model with an error.
    if not record.endpoint.spec.is_pool and (dead := processes.dead_children(record.endpoint.pid)):
        return f"a model's Python process died (pid {', '.join(map(str, dead))})"
    for one in found:
        if one.state != "ready":
            return f"its {one.name} is {one.state} (pid {one.pid})"
    return ""
