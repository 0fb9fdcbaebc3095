"""Starting: claim the name, spawn Triton, wait until a one-token probe answers, and say why when it does not."""

from __future__ import annotations

import dataclasses
import datetime
import os
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from toolkit import processes
from toolkit.errors import MissingError, ServerError, TrtkError, UsageError
from toolkit.serve import backend as backends
from toolkit.serve import ports, records, stopping, triton_http, triton_log
from toolkit.serve.backend import Launch
from toolkit.serve.records import NOT_STARTED, Record
from toolkit.specs import Endpoint, Progress, ServeSpec, no_progress

POLL_S = 0.1


def start(spec: ServeSpec, *, on_progress: Progress = no_progress, is_attached: bool = False) -> Endpoint:
    """Start a server and return once it answers; an attached one stops when this process ends."""
    backend = backends.pick(spec.backend)
    spec = dataclasses.replace(spec, backend=backend.name, repository=str(Path(spec.repository).absolute()))
    check(spec)
    _need_free_name(spec, records.read(spec.name))
    ports.check(spec)
    backend.prepare()
    record = _claim(spec)
    try:
        launch = backend.launch(spec, record.server_id)
        if is_attached:
            _spawn_watcher(record)
        pid = _spawn(launch.argv, {**os.environ, **launch.environment}, log=Path(record.endpoint.log_path))
        started = processes.process(pid)
        record = dataclasses.replace(
            record,
            endpoint=dataclasses.replace(record.endpoint, pid=pid),
            start_ticks=started.start_ticks if started else 0,
        )
        records.write(record)
        _wait(record, on_progress)
        record = dataclasses.replace(record, is_ready=True)
        records.write(record)
    except BaseException:
        # Ctrl-C too: nothing half-started stays.
        stopping.stop_recorded(record, timeout_s=1.0)
        raise
    return record.endpoint


def plan(spec: ServeSpec) -> Launch:
    """Return the command that `start` would run; nothing is written or started."""
    check(spec)
    return backends.pick(spec.backend).launch(spec, "0" * 32)


def check(spec: ServeSpec) -> None:
    """Raise unless the repository holds models and the backend may serve them as asked."""
    repository = Path(spec.repository)
    if not repository.is_dir():
        raise UsageError(f"There is no model repository at {repository}.", hint="`trtk build` makes one.")
    names = models_in(repository)
    if not names:
        raise UsageError(
            f"{repository} holds no model: no folder in it has a config.pbtxt.", hint="`trtk build` makes a repository."
        )
    if spec.probe_model and spec.probe_model not in names:
        raise UsageError(f"{repository} has no model {spec.probe_model!r} to probe; it has {', '.join(names)}.")
    backends.pick(spec.backend).check(spec)


def models_in(repository: Path) -> list[str]:
    """Return the names of the models of a repository."""
    return sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))


def _claim(spec: ServeSpec) -> Record:
    """Take the name; clean up after a dead server that has it."""
    with records.locked():
        found = records.read(spec.name)
        _need_free_name(spec, found)
        record = _new_record(spec)
        records.write(record)
        Path(record.endpoint.log_path).write_bytes(b"")
    if found is not None:
        stopping.stop_recorded(found)
    return record


def _need_free_name(spec: ServeSpec, found: Record | None) -> None:
    if found is not None and found.is_alive:
        raise MissingError(
            f"A server named {found.endpoint.name!r} is already running at {found.endpoint.http_url} "
            f"(pid {found.endpoint.pid}).",
            hint=f"Use it, or `trtk stop {spec.name}`, or give this one another --name and other ports.",
        )


def _new_record(spec: ServeSpec) -> Record:
    host = f"[{spec.host}]" if ":" in spec.host else spec.host
    owner = processes.this_process()
    return Record(
        server_id=uuid.uuid4().hex,
        endpoint=Endpoint(
            name=spec.name,
            http_url=f"http://{host}:{spec.http_port}",
            grpc_url=f"{host}:{spec.grpc_port}",
            metrics_url=f"http://{host}:{spec.metrics_port}/metrics",
            pid=NOT_STARTED,
            log_path=str(records.log_file(spec.name)),
            started_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            spec=spec,
        ),
        boot_id=processes.boot_id(),
        start_ticks=0,
        owner_pid=owner.pid,
        owner_start_ticks=owner.start_ticks,
    )


def _spawn(argv: Sequence[str], environment: Mapping[str, str], *, log: Path, stdin: int | None = None) -> int:
    """Start a process in a session of its own, away from the working folder, which models could import from."""
    output = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    source = os.open(os.devnull, os.O_RDONLY) if stdin is None else stdin
    try:
        return os.posix_spawn(
            "/bin/sh",
            ["sh", "-c", 'cd "$0" && exec "$@"', str(log.parent), *argv],
            environment,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, source, 0),
                (os.POSIX_SPAWN_DUP2, output, 1),
                (os.POSIX_SPAWN_DUP2, output, 2),
            ],
            setsid=True,
            setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP],
        )
    finally:
        os.close(output)
        os.close(source)


def _spawn_watcher(record: Record) -> None:
    # The writing end stays open, in this process alone, for as long as it lives: that is what the watcher watches.
    reading, _ = os.pipe()
    argv = [sys.executable, "-m", "toolkit.serve.watcher", record.endpoint.name, record.server_id]
    _spawn(argv, os.environ, log=Path(record.endpoint.log_path), stdin=reading)


def _wait(record: Record, on_progress: Progress) -> None:
    spec = record.endpoint.spec
    began = time.monotonic()
    limit = spec.startup_timeout_s
    step = f"Starting Triton (at most {limit:.0f} s)"
    while not triton_http.is_ready(record.endpoint.http_url, record.server_id):
        elapsed = time.monotonic() - began
        on_progress(step, min(elapsed, limit), limit)
        log = triton_log.read_tail(Path(record.endpoint.log_path))
        if not record.is_alive or triton_log.dead_stub(log):
            raise _failed(record)
        if elapsed > limit:
            raise _explained(
                record, f"The server was not ready after {limit:.0f} s.", hint="Give it longer with --timeout."
            )
        time.sleep(POLL_S)
    if spec.probe_model:
        left = max(1.0, limit - (time.monotonic() - began))
        try:
            triton_http.generate_one_token(record.endpoint.http_url, spec.probe_model, timeout_s=left)
        except ServerError as error:
            raise _explained(record, str(error)) from error
    on_progress(step, limit, limit)


def _failed(record: Record) -> TrtkError:
    log = triton_log.read_tail(Path(record.endpoint.log_path))
    port = triton_log.busy_port(log)
    if port is not None:
        return ports.busy(record.endpoint.spec, port)
    failure = triton_log.failure(log)
    if failure is not None:
        return _explained(record, f"Model {failure.model!r} could not be loaded: {failure.reason}.")
    if reason := triton_log.dead_stub(log):
        return _explained(record, f"A model's Python process could not start: {reason}.")
    return died(record.endpoint)


def died(endpoint: Endpoint) -> ServerError:
    """Return the error of a server that ended by itself; how it ended is known where it was started."""
    how = ""
    exit_code = processes.exit_code(endpoint.pid, timeout_s=2.0)
    if exit_code is not None:
        how = f" by {signal.Signals(-exit_code).name}" if exit_code < 0 else f" with exit code {exit_code}"
    return _error(endpoint, f"The server {endpoint.name!r} (pid {endpoint.pid}) ended{how}.")


def _explained(record: Record, message: str, *, hint: str = "") -> ServerError:
    return _error(record.endpoint, message, hint=hint)


def _error(endpoint: Endpoint, message: str, *, hint: str = "") -> ServerError:
    lines = triton_log.telling_lines(triton_log.read_tail(Path(endpoint.log_path)))
    shown = "".join(f"\n  {line}" for line in lines)
    said = f"{message}\nFrom its log, {endpoint.log_path}:{shown}" if lines else message
    return ServerError(said, hint=f"{hint} `trtk logs {endpoint.name}` shows its log.".strip())
