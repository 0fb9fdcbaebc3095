"""`trtk serve`: start Triton on what `build` made, and stay with it or leave it running."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from toolkit.cli import output
from toolkit.specs import Endpoint, ServeSpec, to_json

if TYPE_CHECKING:
    from toolkit.serve.targets import Target

#: How often a foreground server is looked at.
WATCH_S = 0.5
#: Of a log that is printed: in a container it lies in memory.
KEPT_LOG_BYTES = 4 << 20


@click.command(epilog=output.examples("trtk serve", "trtk serve engines/demo-int4 --detach --http-port 9000"))
@click.argument("engine", required=False, type=click.Path(path_type=Path))
@click.option("--name", help="What status, logs and stop call it; default: the folder's name.")
@click.option("--http-port", default=8000, show_default=True, help="HTTP port.")
@click.option("--grpc-port", default=8001, show_default=True, help="gRPC port.")
@click.option("--metrics-port", default=8002, show_default=True, help="Port of the Prometheus metrics.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; loopback.")
@click.option("--allow-remote", is_flag=True, help="Let --host be any address: for a container of its own.")
@click.option("--exit-timeout", default=10.0, show_default=True, metavar="S", help="Seconds for requests to end in.")
@click.option("--print-log", is_flag=True, help="Print Triton's log on stderr as it grows, and keep no more of it.")
@click.option("--detach", is_flag=True, help="Return once it is ready and leave it running.")
@click.option("--timeout", default=180.0, show_default=True, metavar="S", help="Seconds it may take to become ready.")
@click.option("--backend", default="auto", show_default=True, help="How Triton runs: auto or embedded.")
@click.option("--no-verify", is_flag=True, help="Do not compare the files with the manifest.")
@click.option("--dry-run", is_flag=True, help="Say the command and start nothing.")
@output.json_option
def serve(
    engine: Path | None,
    name: str | None,
    http_port: int,
    grpc_port: int,
    metrics_port: int,
    host: str,
    allow_remote: bool,
    exit_timeout: float,
    print_log: bool,
    detach: bool,
    timeout: float,
    backend: str,
    no_verify: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Start Triton on what `build` made.

    ENGINE is a folder that `trtk build` made, or a model repository; without it, the newest folder in engines/. Files
    of a built folder must still have the hashes of its manifest.
    """
    from toolkit.serve import targets

    with output.progress() as report:
        target = targets.find(engine, is_verified=not no_verify, progress=report)
    spec = ServeSpec(
        name=name or target.name,
        repository=str(target.repository),
        backend=backend,
        host=host,
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        startup_timeout_s=timeout,
        exit_timeout_s=exit_timeout,
        is_remote_allowed=allow_remote,
        probe_model=target.probe_model,
    )
    if target.was_chosen:
        output.note(f"Serving the newest engine: {target.name}.")
    if dry_run:
        _say_command(spec, as_json=as_json)
    else:
        _serve(spec, target, is_detached=detach, is_log_printed=print_log, as_json=as_json)


def _serve(spec: ServeSpec, target: Target, *, is_detached: bool, is_log_printed: bool, as_json: bool) -> None:
    from toolkit import serve as server

    output.note("This is the embedded Triton 2.51 on the CPU: for development, tests and rehearsal.")
    if not target.probe_model:
        output.note("No ensemble in this repository: it counts as ready without a one-token probe.")
    # `kill` and a closed terminal must end it like Ctrl-C does, except under nohup.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    with output.progress() as report:
        endpoint = server.start(spec, on_progress=report, is_attached=not is_detached)
    _show(endpoint, target, as_json=as_json)
    if is_detached:
        output.note(f"Stop it with: trtk stop {endpoint.name}")
    else:
        _follow(endpoint, is_log_printed=is_log_printed)


def _say_command(spec: ServeSpec, *, as_json: bool) -> None:
    import shlex

    from toolkit.serve.starting import plan

    launch = plan(spec)
    if as_json:
        output.document({"command": list(launch.argv), "environment": dict(launch.environment)})
    else:
        environment = [f"{name}={value}" for name, value in launch.environment.items()]
        output.text(shlex.join(["env", *environment, *launch.argv]))


def _show(endpoint: Endpoint, target: Target, *, as_json: bool) -> None:
    if as_json:
        output.document(to_json(endpoint))
        return
    output.text(f"{endpoint.name} is ready (pid {endpoint.pid}).")
    output.text(f"  HTTP     {endpoint.http_url}")
    output.text(f"  gRPC     {endpoint.grpc_url}")
    output.text(f"  metrics  {endpoint.metrics_url}")
    output.text(f"  log      {endpoint.log_path}")
    if target.probe_model:
        body = '{"text_input": "The capital of France is", "max_tokens": 32}'
        output.text(f"Try: curl -s {endpoint.http_url}/v2/models/{target.probe_model}/generate -d '{body}'")
    else:
        output.text(f"Try: curl -s {endpoint.http_url}/v2")


def _follow(endpoint: Endpoint, *, is_log_printed: bool) -> None:
    """Stay until Ctrl-C, or until the server ends by itself."""
    from toolkit import serve as server

    output.note("Ctrl-C stops it.")
    printed = 0
    try:
        while server.is_running(endpoint):
            printed = _print_from(Path(endpoint.log_path), printed) if is_log_printed else 0
            time.sleep(WATCH_S)
    except KeyboardInterrupt:
        output.note(f"Stopping {endpoint.name}.")
        server.stop(endpoint.name)
        output.note(f"Stopped {endpoint.name}.")
        return
    if any(status.endpoint.pid == endpoint.pid for status in server.running()):
        error = server.died(endpoint)
        server.stop(endpoint.name)
        raise error
    output.note(f"{endpoint.name} was stopped by another command.")


def _print_from(log: Path, start: int) -> int:
    """Print what a log has beyond START; return where it was left, at the beginning once it is long enough."""
    with log.open("rb") as stream:
        stream.seek(start)
        piece = stream.read()
    click.echo(piece.decode(errors="replace"), nl=False, err=True)
    if start + len(piece) < KEPT_LOG_BYTES:
        return start + len(piece)
    os.truncate(log, 0)  # Triton appends: it goes on at the new end
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signature of a handler
    raise KeyboardInterrupt
