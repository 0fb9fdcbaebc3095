"""`trtk monitoring`: the files for Prometheus and Grafana."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from toolkit.cli import output, reaching
from toolkit.errors import MissingError, UnknownName, UsageError
from toolkit.specs import to_json

if TYPE_CHECKING:
    from toolkit.monitoring import Exported, ScrapeTarget, Written
    from toolkit.serve import ServerStatus
    from toolkit.specs import Endpoint

KINDS = ("cpu", "engine", "llmapi")
TRITON_JOB, GATEWAY_JOB = "triton", "trtk-gateway"
JOBS = {"trtk_gateway_": GATEWAY_JOB, "DCGM_": "dcgm"}


@click.command(
    epilog=output.examples(
        "trtk monitoring demo-int4 -o monitoring",
        "trtk monitoring --for engine --address 10.0.0.7:8002 --address 10.0.0.8:8002 -o monitoring",
    )
)
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option(
    "-o", "--output", "folder", type=click.Path(file_okay=False, path_type=Path), default=Path("monitoring"),
    show_default=True, help="The folder to write into.",
)  # fmt: skip
@click.option("--url", "urls", multiple=True, help="Further metrics to read: http://host:9400/metrics, say DCGM's.")
@click.option("--for", "kind", type=click.Choice(KINDS), help="Do not ask a server: write for what this flow exports.")
@click.option("--address", "addresses", multiple=True, metavar="HOST:PORT", help="With --for: metrics to scrape.")
@click.option(
    "--gateway", "gateways", multiple=True, metavar="HOST:PORT", help="With --for: OpenAI endpoints to scrape."
)
@click.option("--release", help="With --for: the Triton release; default: the one that trtk builds for.")
@click.option("--dry-run", is_flag=True, help="Say what would be written.")
@output.json_option
def monitoring(
    names: tuple[str, ...],
    folder: Path,
    urls: tuple[str, ...],
    kind: str | None,
    addresses: tuple[str, ...],
    gateways: tuple[str, ...],
    release: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write what Prometheus and Grafana need to watch the servers.

    prometheus.yml, alerts.yml, alerts_test.yml, dashboard.json and a README with the commands. The servers are asked
    what they export, and nothing is written that reads anything else; what was left out is listed. Without NAME, every
    server that trtk started.
    """
    from toolkit import monitoring as room

    if kind is None and (addresses or gateways or release):
        raise UsageError("--address, --gateway and --release belong to --for.", hint=f"Add --for {KINDS[0]}.")
    if kind is not None and (names or urls):
        raise UsageError("--for asks no server, so it takes no NAME and no --url.", hint="Give --address HOST:PORT.")
    targets, exported = _planned(kind, addresses, gateways, release=release) if kind else _asked(names, urls)
    written = room.made(targets, exported)
    if not dry_run:
        room.write(written, folder)
    if as_json:
        output.document({
            "folder": str(folder),
            "files": sorted(written.texts),
            "targets": to_json(targets),
            "alerts": written.alerts,
            "panels": written.panels,
            "left_out": to_json(written.left_out),
        })  # fmt: skip
    else:
        _show(written, folder, is_written=not dry_run)


def _asked(names: Sequence[str], urls: Sequence[str]) -> tuple[tuple[ScrapeTarget, ...], Exported]:
    """Read every exporter; one that does not answer is an error, for nobody knows then what it exports."""
    from toolkit import monitoring as room

    found = _served(names) if names or not urls else []
    found += [(_server_of(url), url) for url in urls]
    scrapes = {url: room.scrape(url) for _, url in found}
    targets = [
        replace(_target(server, url, _job(scrapes[url].kinds)), needs_key=scrapes[url].needs_key)
        for server, url in found
    ]
    return tuple(targets), room.seen(scrapes.values())


def _served(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return (server, metrics' URL) of the servers that trtk started, their gateways too."""
    from toolkit import serve

    running = {one.endpoint.name: one for one in serve.running()}
    for name in names:
        if name not in running:
            raise UnknownName("server", name, running, command="trtk status")
    if not running:
        raise MissingError("No server is running here.", hint=f"{reaching.START_HINT} Or see --for.")
    ends = [reaching.ready_server(name) for name in names] or _ready(running.values())
    return [(end.name, url) for end in ends for url in (end.metrics_url, *reaching.gateway_metrics(end))]


def _ready(found: Collection[ServerStatus]) -> list[Endpoint]:
    """Return the servers that can be asked; the others are named."""
    ready = [one.endpoint for one in found if one.state == "ready"]
    for one in found:
        if one.state != "ready":
            output.warn(f"{one.endpoint.name} is {one.state}: it is not in these files.")
    return ready or [reaching.ready_server()]  # which says why there is none


def _planned(
    kind: str, addresses: Sequence[str], gateways: Sequence[str], *, release: str | None
) -> tuple[tuple[ScrapeTarget, ...], Exported]:
    from toolkit import monitoring as room
    from toolkit import releases

    if not addresses:
        raise UsageError("--for needs to know where the metrics are.", hint="Add --address 127.0.0.1:8002.")
    tag = releases.get(release or releases.AUTO).name
    jobs = {TRITON_JOB: addresses, GATEWAY_JOB: gateways}
    urls = [(job, f"http://{address}/metrics") for job, listed in jobs.items() for address in listed]
    targets = tuple(_target(_server_of(url), url, job) for job, url in urls)
    return targets, room.known([kind, *(["gateway"] if gateways else [])], tag)


def _target(server: str, url: str, job: str) -> ScrapeTarget:
    from toolkit.monitoring import ScrapeTarget

    split = urlsplit(url)
    return ScrapeTarget(server=server, job=job, address=split.netloc, path=split.path or "/metrics")


def _server_of(url: str) -> str:
    """Return what to call an exporter that trtk did not start: its host and port."""
    try:
        split = urlsplit(url)
        is_address = bool(split.hostname and split.port)
    except ValueError:
        is_address = False
    if not is_address:
        raise UsageError(f"{url!r} is no address of metrics.", hint="Write http://127.0.0.1:8002/metrics.")
    return split.netloc


def _job(names: Iterable[str]) -> str:
    kept = tuple(names)
    return next((job for prefix, job in JOBS.items() if any(name.startswith(prefix) for name in kept)), TRITON_JOB)


def _show(written: Written, folder: Path, *, is_written: bool) -> None:
    verb = "Wrote" if is_written else "Would write"
    output.text(f"{verb} {len(written.texts)} files to {folder}: {written.alerts} alerts, {written.panels} panels.")
    if not is_written:
        for one in written.left_out:
            output.text(f"  not in it: {one.what}: nobody exports {', '.join(one.missing)}")
        return
    if written.left_out:
        output.text(
            f"{len(written.left_out)} more alerts and panels read what nobody here exports: README.md lists them."
        )
    output.text(f"Next: promtool check config {folder / 'prometheus.yml'}; {folder / 'README.md'} has the commands.")
