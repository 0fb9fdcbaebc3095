"""`trtk serve`: start Triton on what `build` made, and stay with it or leave it running."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from types import FrameType
from typing import Any

import click

from toolkit.cli import output
from toolkit.cli.front import need_no_port, with_front
from toolkit.cli.gateway_options import gateway_options, with_gateway, write_config
from toolkit.cli.pool_options import planned, pool_options
from toolkit.cli.serve_emit import emit, emit_options
from toolkit.cli.serve_options import container_options, lifetime_options, listening_options, spec_of
from toolkit.specs import Endpoint, ServeSpec, to_json

#: Of a log that is printed: in a container it lies in memory.
KEPT_LOG_BYTES = 4 << 20


@click.command(epilog=output.examples("trtk serve", "trtk serve engines/demo-int4 --detach --http-port 9000"))
@click.argument("engines", nargs=-1, metavar="[ENGINE]...", type=click.Path(path_type=Path))
@click.option("--name", help="What status, logs and stop call it; default: the folder's name.")
@listening_options
@click.option("--backend", default="auto", show_default=True, help="How Triton runs: auto, embedded or docker.")
@click.option("--detach", is_flag=True, help="Return once it is ready and leave it running.")
@lifetime_options
@click.option("--print-log", is_flag=True, help="Print Triton's log on stderr as it grows, and keep no more of it.")
@container_options
@gateway_options
@pool_options
@click.option("--server-id", default="", hidden=True)  # of a server in a container, told by who watches that
@click.option("--no-verify", is_flag=True, help="Do not compare the files with the manifest.")
@click.option("--dry-run", is_flag=True, help="Say the command and start nothing.")
@emit_options
@output.json_option
def serve(engines: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    """Start Triton on what `build` made.

    ENGINE is a folder that `trtk build` made, or a model repository; without it, the newest folder in engines/. Files
    of a built folder must still have the hashes of its manifest.

    Several, with --memory, share the device: each is loaded when it is asked for, and `trtk ps` shows them. NAME=ENGINE
    gives one another name.
    """
    from toolkit.serve import targets

    with output.progress() as report:
        pool = planned(engines, options, report)
        options["openai"] |= pool is not None
        target = (
            pool.target
            if pool
            else targets.find(next(iter(engines), None), is_verified=not options["no_verify"], progress=report)
        )
    if pool and options["dry_run"]:
        pool.show(as_json=as_json)
        return
    asked = spec_of(target, options)
    asked = pool.server(asked) if pool else asked
    if options["direct_http"] or options["emit"] == "compose":  # a compose file has Triton alone
        need_no_port(options["triton_http_port"])
    else:
        asked = with_front(asked, triton_http_port=options["triton_http_port"])
    spec = with_gateway(asked, target, options)
    if target.was_chosen:
        output.note(f"Serving the newest engine: {target.name}.")
    if options["emit"]:
        emit(spec, options, as_json=as_json)
    elif options["dry_run"]:
        _say_command(spec, as_json=as_json)
    else:

        def write() -> None:
            if pool:
                pool.write()
            write_config(spec, target, options)

        _serve(spec, options, write, as_json=as_json)


def _serve(spec: ServeSpec, options: dict[str, Any], write: Callable[[], None], *, as_json: bool) -> None:
    from toolkit import serve as server
    from toolkit.serve.backend import pick

    is_detached = options["detach"]
    if note := pick(spec.backend).note:
        output.note(note)
    if not spec.probe_model and not spec.is_pool:
        output.note("No ensemble in this repository: it counts as ready without a one-token probe.")
    # `kill` and a closed terminal must end it like Ctrl-C does, except under nohup.
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _interrupt)
    with output.progress() as report:
        endpoint = server.start(
            spec,
            on_progress=report,
            is_attached=not is_detached,
            server_id=options["server_id"],
            once_claimed=write,  # not before: they would be the files of the server that has the name
        )
    if is_detached:
        server.start_supervisor(endpoint)
    _show(endpoint, as_json=as_json)
    if is_detached:
        output.note(f"Stop it with: trtk stop {quote(endpoint.name)}")
    else:
        _stay(endpoint, is_log_printed=options["print_log"])


def _say_command(spec: ServeSpec, *, as_json: bool) -> None:
    import shlex

    from toolkit.serve.starting import plan

    launch = plan(spec)
    if as_json:
        output.document({"command": list(launch.shown or launch.argv), "environment": dict(launch.environment)})
    elif launch.shown:
        output.text(shlex.join(launch.shown))
    else:
        environment = [f"{name}={value}" for name, value in launch.environment.items()]
        output.text(shlex.join(["env", *environment, *launch.argv]))


def _show(endpoint: Endpoint, *, as_json: bool) -> None:
    if as_json:
        output.document(to_json(endpoint))
        return
    output.text(f"{endpoint.name} is ready (pid {endpoint.pid}).")
    output.text(f"  HTTP     {endpoint.http_url}")
    output.text(f"  gRPC     {endpoint.grpc_url}")
    output.text(f"  metrics  {endpoint.metrics_url}")
    for companion in endpoint.spec.companions:
        if companion.url:
            output.text(f"  {companion.name:<8} {companion.url}")
    output.text(f"  log      {endpoint.log_path}")
    if endpoint.spec.is_pool:
        output.text(f"Its models are loaded on demand; `trtk ps {quote(endpoint.name)}` shows them.")
    elif model := endpoint.spec.probe_model:
        body = '{"text_input": "The capital of France is", "max_tokens": 32}'
        output.text(f"Try: curl -s {endpoint.http_url}/v2/models/{model}/generate -d '{body}'")
    else:
        output.text(f"Try: curl -s {endpoint.http_url}/v2")


def _stay(endpoint: Endpoint, *, is_log_printed: bool) -> None:
    """Supervise until Ctrl-C, or until the server fails for good."""
    from toolkit import serve as server
    from toolkit.errors import TrtkError

    output.note("Ctrl-C stops it.")
    log, printed = Path(endpoint.log_path), 0

    def print_log() -> None:
        nonlocal printed
        if is_log_printed:
            printed = _print_from(log, printed)

    try:
        server.supervise(endpoint, say=output.note, look=print_log)
    except KeyboardInterrupt:
        output.note(f"Stopping {endpoint.name}.")
        server.stop(endpoint.name)
        output.note(f"Stopped {endpoint.name}.")
        return
    except TrtkError:
        print_log()
        server.stop(endpoint.name)
        raise
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
