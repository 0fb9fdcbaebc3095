"""Starting: claim the name, spawn Triton, wait until a one-token probe answers, then start its companions."""

from __future__ import annotations

import dataclasses
import datetime
import os
import secrets
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from shlex import quote

from toolkit import processes
from toolkit.errors import MissingError, ServerError, UsageError
from toolkit.serve import backend as backends
from toolkit.serve import companions, failing, listening, ports, records, spawning, stopping, triton_http, triton_log
from toolkit.serve.backend import Identity, Launch
from toolkit.serve.records import NOT_STARTED, Record
from toolkit.specs import Endpoint, Progress, ServeSpec, no_progress

POLL_S = 0.1


def start(
    spec: ServeSpec,
    *,
    on_progress: Progress = no_progress,
    is_attached: bool = False,
    server_id: str = "",
    once_claimed: Callable[[], None] = lambda: None,
) -> Endpoint:
    """Start a server and return once it answers; an attached one stops when this process ends.

    The id is random unless the one who starts a server in a container of its own has to know it. ONCE_CLAIMED writes
    what goes by the server's name: nobody else has it then.
    """
    backend = backends.pick(spec.backend)
    spec = dataclasses.replace(spec, backend=backend.name, repository=str(Path(spec.repository).absolute()))
    check(spec)
    _need_free_name(spec.name)
    ports.check(spec)
    spec = backend.prepare(spec, on_progress)
    record = _claim(spec, is_attached=is_attached, server_id=server_id or uuid.uuid4().hex)
    try:
        once_claimed()
        if is_attached:
            _spawn_watcher(record)
        record = bring_up(record, on_progress)
    except BaseException:
        # Ctrl-C too: nothing half-started stays.
        stopping.stop_recorded(record, timeout_s=1.0)
        raise
    return record.endpoint


def bring_up(record: Record, on_progress: Progress = no_progress) -> Record:
    """Start what a record says, Triton first; return the record once everything in it is ready."""
    spec = record.endpoint.spec
    launch = backends.pick(spec.backend).launch(spec, Identity(server_id=record.server_id, secret=record.secret))
    log = Path(record.endpoint.log_path)
    with records.claimed(record) as current:
        log_start = log.stat().st_size
        started = spawning.spawn(launch.argv, {**os.environ, **launch.environment}, log=log)
        record = dataclasses.replace(
            current,
            endpoint=dataclasses.replace(current.endpoint, pid=started.pid),
            start_ticks=started.start_ticks,
            companions=(),
            is_ready=False,
            log_start=log_start,
        )
        records.write(record)
    _wait(record, on_progress)
    for companion in spec.companions:
        on_progress(f"Starting the {companion.name}", 0, 1)
        try:
            record = companions.start(record, companion)
        except ServerError as error:
            raise failing.explained(record.endpoint, str(error)) from error
        on_progress(f"Starting the {companion.name}", 1, 1)
    return records.change(record, is_ready=True)


def plan(spec: ServeSpec) -> Launch:
    """Return the command that `start` would run; nothing is written or started."""
    check(spec)
    return backends.pick(spec.backend).launch(spec, Identity(server_id="0" * 32, secret="0" * 32))


def check(spec: ServeSpec) -> None:
    """Raise unless the repository holds models and the backend may serve them as asked."""
    repository = Path(spec.repository)
    if spec.is_pool:  # its repository is written once its name is taken
        backends.pick(spec.backend).check(spec)
        return
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


def _claim(spec: ServeSpec, *, is_attached: bool, server_id: str) -> Record:
    """Take the name; clean up after a dead server that has it."""
    with records.locked():
        found = records.read(spec.name)
        _need_not_held(found)
        record = _new_record(spec, is_attached=is_attached, server_id=server_id)
        records.write(record)
        _empty(Path(record.endpoint.log_path))
    if found is not None:
        stopping.stop_recorded(found)
    return record


def _empty(log: Path) -> None:
    log.touch()
    log.chmod(0o600)  # models may print what they are asked
    os.truncate(log, 0)


def _need_free_name(name: str) -> None:
    """Raise where a server of this name runs or is being started."""
    _need_not_held(records.read(name))


def _need_not_held(found: Record | None) -> None:
    if found is not None and found.is_held:
        raise MissingError(
            f"A server named {found.endpoint.name!r} is already running at {found.endpoint.http_url} "
            f"(pid {found.endpoint.pid}).",
            hint=f"Use it, or `trtk stop {quote(found.endpoint.name)}`, or give this one another --name and other"
            " ports.",
        )


def _new_record(spec: ServeSpec, *, is_attached: bool, server_id: str) -> Record:
    host = listening.in_url(spec.host)
    owner = processes.this_process()
    return Record(
        server_id=server_id,
        secret=secrets.token_hex(16),
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
        is_supervised=is_attached,
    )


def _spawn_watcher(record: Record) -> None:
    # The writing end stays open, in this process alone, for as long as it lives: that is what the watcher watches.
    reading, _ = os.pipe()
    argv = [sys.executable, "-m", "toolkit.serve.watcher", record.endpoint.name, record.server_id]
    spawning.spawn(argv, os.environ, log=Path(record.endpoint.log_path), stdin=reading)


def _wait(record: Record, on_progress: Progress) -> None:
    spec = record.endpoint.spec
    began = time.monotonic()
    limit = spec.startup_timeout_s
    step = f"Starting Triton (at most {limit:.0f} s)"
    url = ports.triton_http_url(spec)
    while not triton_http.is_ready(url, record.server_id):
        elapsed = time.monotonic() - began
        on_progress(step, min(elapsed, limit), limit)
        log = triton_log.read_tail(Path(record.endpoint.log_path), start=record.log_start)
        if not record.is_alive or triton_log.dead_stub(log):
            raise failing.to_start(record)
        if not records.is_current(record):
            raise records.stopped_meanwhile(record)
        if elapsed > limit:
            raise failing.explained(
                record.endpoint, f"The server was not ready after {limit:.0f} s.", hint="Give it longer with --timeout."
            )
        time.sleep(POLL_S)
    if spec.probe_model:
        left = max(1.0, limit - (time.monotonic() - began))
        try:
            triton_http.generate_one_token(url, spec.probe_model, timeout_s=left)
        except ServerError as error:
            raise failing.explained(record.endpoint, str(error)) from error
    on_progress(step, limit, limit)
