"""`trtk bench`: load-test a server and write a report."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import (
    bench_view,
    finding,
    headroom,
    load_options,
    output,
    pricing,
    reaching,
    served_build,
    sweeping,
)
from toolkit.cli.bench_runs import Series

if TYPE_CHECKING:
    from toolkit.bench import Run
    from toolkit.specs import BenchReport, LoadProfile, TraceRow

DEFAULT_REQUESTS_PER_SLOT = 10
DEFAULT_CONCURRENCY = 8


@click.command(
    epilog=output.examples(
        "trtk bench --concurrency 16 --requests 160 --isl 128 --osl 64",
        "trtk bench --url http://localhost:8000 --rate 20 --duration 30 --slo ttft=500ms@p95 --slo itl=50ms",
    )
)
@click.option(
    "--url",
    help="grpc://host:port, http://host:port or openai+http://host:port/v1; default: the server that `trtk serve` "
    "started.",
)
@click.option("--model", help="Its name on the server; default: ensemble, with OpenAI the first that is listed.")
@click.option(
    "--endpoint", type=click.Choice(["chat", "completions"]), default="chat", show_default=True, help="Of OpenAI's."
)
@click.option("--concurrency", type=click.IntRange(1), help="Requests in flight, 8 by default; with --rate the most.")
@click.option("--rate", help="Open loop, requests a second: 20, a ramp 5..50, or steps 5,10,20 over --duration.")
@click.option(
    "--arrival", type=click.Choice(["constant", "poisson", "gamma"]), help="Of --rate; poisson where it is left out."
)
@click.option(
    "--burstiness", type=click.FloatRange(0, min_open=True), help="Of gamma: variation of the gaps; Poisson: 1."
)
@click.option(
    "--ramp", type=click.FloatRange(0), default=0.0, help="Seconds in which the slots of --concurrency begin."
)
@click.option("--requests", type=click.IntRange(1), help="Stop after so many; default: ten for each in flight.")
@click.option("--duration", type=click.FloatRange(0, min_open=True), help="Send for so many seconds instead.")
@click.option("--isl", default="128", show_default=True, help="Input tokens: 128, normal:512,128, lognormal:512,0.6, …")
@click.option("--osl", default="64", show_default=True, help="Output tokens; also uniform:64,512 or file:LENGTHS.")
@click.option("--shared-prefix", type=click.FloatRange(0, 1), default=0.0, help="Share of the input that is alike.")
@click.option("--cancel-share", type=click.FloatRange(0, 1), default=0.0, help="Share whose clients leave midway.")
@click.option(
    "--trace",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Replay: Mooncake, Azure, BurstGPT, ShareGPT or requests.jsonl.",
)
@click.option("--trace-speed", type=click.FloatRange(0, min_open=True), default=1.0, help="2: in half the time.")
@click.option("--warmup", type=click.IntRange(0), help="Requests before measuring; default: one for each in flight.")
@click.option(
    "--prompts", type=click.Path(dir_okay=False, path_type=Path), help='One a line, or {"prompt": ...} a line.'
)
@load_options.load_options
@click.option("--no-stream", is_flag=True, help="Ask for whole answers.")
@click.option("--keep-eos", is_flag=True, help="Let answers end early instead of forcing --osl tokens.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), default=120.0, show_default=True, help="Seconds.")
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="The same seed sends the same prompts.",
)
@click.option(
    "--slo",
    "slos",
    multiple=True,
    help="ttft=500ms@p95; also itl, tpot, e2e, or a preset such as chat. Exit 7 if missed.",
)
@click.option(
    "--find-max", type=click.Choice(["concurrency", "rate"]), help="Search the highest that meets every --slo."
)
@click.option("--sweep", help="Run after run: concurrency=1..64, rate=1..20 or rate=2,5,10. Names knee and cliff.")
@click.option("--metrics-url", help="Where its Prometheus metrics are; known for servers of `trtk serve`.")
@click.option("--price", help="What the server costs: 0.35EUR/h, or a GPU's name for its cheapest dated price: h100*2.")
@click.option(
    "--utilization", type=click.FloatRange(0, 1, min_open=True), help="Share of the paid time that it is so busy: 0.4."
)
@click.option("-o", "--output", "folder", type=click.Path(file_okay=False, path_type=Path), help="The report's folder.")
@click.option("--no-page", is_flag=True, help="Write the numbers without report.html; `trtk report` draws them later.")
@output.json_option
@click.pass_context
def bench(ctx: click.Context, /, as_json: bool, folder: Path | None, **options: Any) -> None:
    """Load-test a server and write a report."""
    from toolkit import bench as load_tester
    from toolkit import files

    find_max, swept, has_page = options.pop("find_max"), options.pop("sweep"), not options.pop("no_page")
    refuse_both(find_max, swept, has_page=has_page)
    profile = profile_from(options)
    load_tester.check(profile)
    folder = folder or default_folder(profile)
    files.need_place_for(folder)
    if find_max:
        finding.find_max(ctx, profile, find_max, folder=folder, as_json=as_json)
        return
    if swept:
        sweeping.sweep(ctx, profile, swept, folder=folder, as_json=as_json, requests=options["requests"])
        return
    profile = headroom.applied(profile, options)
    environment = served_build.environment_of(profile)
    run = Series(profile).run(profile)
    if not run.records:
        raise KeyboardInterrupt
    report = load_tester.summarise(run, environment)
    page = load_tester.write(report, folder, has_page=has_page)
    if as_json:
        output.document(report.document)
    else:
        bench_view.show(report.document, page if has_page else folder)
    end(ctx, run, report)


def refuse_both(find_max: str | None, swept: str | None, *, has_page: bool) -> None:
    """Refuse a search and a sweep at once, and a sweep that cannot be read, before anything is asked."""
    from toolkit.bench import sweeping as sweeps
    from toolkit.errors import UsageError

    if find_max and swept:
        raise UsageError("--find-max and --sweep exclude each other.", hint="Give one of the two.")
    if (find_max or swept) and not has_page:
        raise UsageError("A search and a sweep have one page for all of their runs.", hint="Leave out --no-page.")
    if swept:
        sweeps.parse(swept)


def profile_from(options: Mapping[str, Any]) -> LoadProfile:
    """Turn the options into a profile; refuse what cannot be meant before anything is sent."""
    from toolkit.bench import prompts, slo, traces
    from toolkit.errors import UsageError
    from toolkit.specs import LoadProfile

    if options["requests"] and options["duration"]:
        raise UsageError("--requests and --duration exclude each other.", hint="Give one of the two.")
    slos = slo.expanded(options["slos"])
    for text in slos:
        slo.parse(text)
    paid = pricing.fields_of(options["price"], options["utilization"])
    trace = traces.read(options["trace"], speed=options["trace_speed"]) if options["trace"] else ()
    shape = shape_from(options, trace)
    concurrency, requests = shape["concurrency"], options["requests"]
    if not requests and not options["duration"]:
        requests = len(trace) or DEFAULT_REQUESTS_PER_SLOT * concurrency
    url, metrics_url = reaching.url_and_metrics(options["url"], options["metrics_url"])
    return LoadProfile(
        **shape,
        url=url,
        model=options["model"] or ("" if url.startswith("openai+") else "ensemble"),
        endpoint=options["endpoint"],
        requests=requests,
        duration_s=options["duration"],
        **lengths_from(options),
        shared_prefix=options["shared_prefix"],
        cancel_share=options["cancel_share"],
        trace=trace,
        is_streaming=not options["no_stream"],
        is_eos_ignored=not options["keep_eos"],
        warmup_requests=concurrency if options["warmup"] is None else options["warmup"],
        prompts=prompts.read(options["prompts"]) if options["prompts"] else (),
        timeout_s=options["timeout"],
        seed=options["seed"],
        metrics_url=metrics_url,
        slos=slos,
        **paid,
        **load_options.fields_of(options),
    )


def lengths_from(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the options say about lengths: the fields of a profile that do."""
    from toolkit.bench import lengths

    fields: dict[str, Any] = {}
    for name in ("isl", "osl"):
        found = lengths.parse(options[name])
        fields[name] = max(1, round(found.mean))
        if not found.is_fixed:
            fields[f"{name}_lengths"] = options[name]
    return fields


def shape_from(options: Mapping[str, Any], trace: tuple[TraceRow, ...]) -> dict[str, Any]:
    """Return what the options say about when requests are sent: the fields of a profile that do."""
    from toolkit.bench import pacing
    from toolkit.errors import UsageError

    concurrency = options["concurrency"] or DEFAULT_CONCURRENCY
    if trace and trace[0].due_s is not None and not options["rate"]:
        return {"arrival": "trace", "concurrency": concurrency, "is_capped": options["concurrency"] is not None}
    if not options["rate"]:
        if options["arrival"] or options["burstiness"]:
            raise UsageError("--arrival and --burstiness belong to an open loop.", hint="Add --rate REQUESTS_A_SECOND.")
        return {"arrival": "closed", "concurrency": concurrency, "ramp_s": options["ramp"]}
    if options["ramp"]:
        raise UsageError("--ramp belongs to a closed loop.", hint="A rate ramps with --rate 5..50.")
    arrival = options["arrival"] or ("gamma" if options["burstiness"] else "poisson")
    if options["burstiness"] and arrival != "gamma":
        raise UsageError(f"--burstiness belongs to --arrival gamma, not to {arrival}.", hint="Leave --arrival out.")
    return {
        "arrival": arrival,
        "stages": pacing.parse(options["rate"], duration_s=options["duration"]),
        "burstiness": options["burstiness"] or 1.0,
        "concurrency": concurrency,
        "is_capped": options["concurrency"] is not None,
    }


def default_folder(profile: LoadProfile) -> Path:
    """Return a folder that says what was measured and when."""
    from toolkit import workspace

    now = datetime.datetime.now().astimezone()
    load = f"r{profile.stages[0].start_rps:g}" if profile.stages else f"c{profile.concurrency}"
    load = "trace" if profile.arrival == "trace" else load
    return workspace.reports_dir() / f"{workspace.slug(profile.model or 'openai')}-{load}-{now:%Y%m%d-%H%M%S}"


def end(ctx: click.Context, run: Run, report: BenchReport) -> None:
    """Say in the exit code how the run ended; the report is written by now."""
    from toolkit.errors import GateError, ServerError

    if run.is_interrupted:
        output.note("Interrupted: the report has what was measured until then.")
        ctx.exit(130)
    if run.stop_reason:
        raise ServerError(run.stop_reason, hint="See `trtk status` and `trtk logs`.")
    if not report.document["requests"]["ok"]:
        raise ServerError(report.document["warnings"][0], hint="See `trtk logs`.")
    missed = [row for row in report.document["slo"] if row["verdict"] == "missed"]
    if missed:
        said = "; ".join(
            f"{row['name']} is {bench_view.measured(row)} at p{row['percentile']:g}, "
            f"the target is {row['target_ms']:g} ms"
            for row in missed
        )
        raise GateError(f"An objective was missed: {said}.", hint="Try a lower --concurrency.")
