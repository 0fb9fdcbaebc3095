"""trtk quickstart: plan, build, serve, ask, load-test, report, on a real small model with no GPU."""

from __future__ import annotations

import json
from pathlib import Path
from shlex import quote

import click

from toolkit.cli import output
from toolkit.cli.front import with_front
from toolkit.specs import BenchReport, Endpoint, LoadProfile, ServeSpec

MODEL, GPU = "demo", "cpu"
QUESTION = "What is the capital of France?"
ANSWER_TOKENS = 48
#: The load test: small enough for two cores, long enough for a distribution.
CONCURRENCY, REQUESTS, ISL, OSL = 16, 64, 32, 48
PYTHON_CLIENT = """\
import numpy as np
import tritonclient.grpc as triton

def tensor(name, value, kind):
    made = triton.InferInput(name, [1, 1], kind)
    made.set_data_from_numpy(np.array([[value]], dtype=triton.triton_to_np_dtype(kind)))
    return made

inputs = [tensor("text_input", {prompt}, "BYTES"),
          tensor("max_tokens", 64, "INT32"), tensor("stream", True, "BOOL")]
client = triton.InferenceServerClient("{grpc_url}")
client.start_stream(lambda result, error: print(error or result.as_numpy("text_output")[0].decode(), end=""))
client.async_stream_infer("ensemble", inputs, outputs=[triton.InferRequestedOutput("text_output")])
client.stop_stream()
"""
EPILOG = output.examples("trtk quickstart", "trtk quickstart --quant int8 --stop --json")


@click.command(epilog=EPILOG)
@click.option("--quant", default="int4", show_default=True, metavar="NAME", help="How to quantize.")
@click.option("--stop", "is_stopped", is_flag=True, help="Stop the server at the end instead of leaving it running.")
@output.json_option
def quickstart(quant: str, is_stopped: bool, as_json: bool) -> None:
    """Run the whole job on the demo model with no GPU: plan, build, serve, ask, load-test, report."""
    from toolkit import serve as server

    folder = build_demo(quant)
    endpoint = serve_demo(folder)
    try:
        answer, prompt = ask(endpoint, folder)
        report, page = load_test(endpoint, folder.name)
    finally:
        if is_stopped:
            server.stop(endpoint.name)
    curl = curl_line(endpoint, prompt)
    python = PYTHON_CLIENT.format(prompt=json.dumps(prompt), grpc_url=endpoint.grpc_url)
    if as_json:
        result = {"engine": str(folder), "endpoint": endpoint.http_url, "grpc": endpoint.grpc_url, "answer": answer}
        output.document({**result, "report": str(page), "curl": curl, "python": python, "bench": dict(report.document)})
        return
    say(answer, report, page, curl=curl, python=python, stop=None if is_stopped else endpoint.name)


def build_demo(quant: str) -> Path:
    """Build engines/demo-QUANT for the CPU."""
    from toolkit import models, workspace
    from toolkit.cli.build import build, run_plan
    from toolkit.cli.planning import check_names, plan_of

    # Everything else is as `trtk build` has it when the user says nothing.
    options = build.make_context("build", [MODEL, "--gpu", GPU, "--quant", quant]).params
    folder = workspace.engine_dir(f"{MODEL}-{workspace.slug(quant)}")
    with output.progress() as progress:
        check_names(options)
        source = models.locate(MODEL, progress=progress)
        run_plan(plan_of(source, options), source, folder, progress=progress)
    return folder


def serve_demo(folder: Path) -> Endpoint:
    """Start the embedded Triton on a build, or take the one that already serves it."""
    from toolkit import serve as server

    repository = str((folder / "model_repository").resolve())
    for status in server.running():
        if status.state == "ready" and status.endpoint.spec.repository == repository:
            return status.endpoint
    spec = with_front(server.free_from(ServeSpec(name=folder.name, repository=repository, backend="embedded")))
    with output.progress() as progress:
        return server.start(spec, on_progress=progress)


def ask(endpoint: Endpoint, folder: Path) -> tuple[str, str]:
    """Return the served model's answer to the question, and the prompt that its chat template made."""
    import httpx

    from toolkit.errors import ServerError
    from toolkit.templating import chat_prompt, chat_template

    found = chat_template(folder / "tokenizer")
    assert found, "the demo model has a chat template"
    prompt = chat_prompt(found[0], [{"role": "user", "content": QUESTION}], found[1])
    body = {"text_input": prompt, "max_tokens": ANSWER_TOKENS}
    try:
        reply = httpx.post(f"{endpoint.http_url}/v2/models/ensemble/generate", json=body, timeout=60)
        reply.raise_for_status()
    except httpx.HTTPError as error:
        raise ServerError(
            f"{endpoint.name} did not answer: {error}.", hint=f"trtk logs {quote(endpoint.name)}"
        ) from error
    return str(reply.json()["text_output"]), prompt


def load_test(endpoint: Endpoint, name: str) -> tuple[BenchReport, Path]:
    """Load-test over gRPC streaming; write reports/NAME."""
    from toolkit import bench, workspace
    from toolkit.cli import live

    profile = LoadProfile(
        url=f"grpc://{endpoint.grpc_url}",
        concurrency=CONCURRENCY,
        requests=REQUESTS,
        isl=ISL,
        osl=OSL,
        warmup_requests=CONCURRENCY // 4,
    )
    with live.shown() as watch:
        run = bench.run(profile, watch=watch)
    if not run.records:
        raise KeyboardInterrupt
    report = bench.summarise(run, bench.environment())
    return report, bench.write(report, workspace.reports_dir() / name)


def curl_line(endpoint: Endpoint, prompt: str) -> str:
    """Return a curl command that streams an answer."""
    body = json.dumps({"text_input": prompt, "max_tokens": 64, "stream": True})
    return f"curl -sN {endpoint.http_url}/v2/models/ensemble/generate_stream -d '{body}'"


def say(answer: str, report: BenchReport, page: Path, *, curl: str, python: str, stop: str | None) -> None:
    """Print what happened and how to go on."""
    from toolkit.cli import bench_view

    output.text(f"Q: {QUESTION}")
    output.text(f"A: {answer.strip()}")
    output.text()
    bench_view.show(report.document, page)
    output.text()
    output.text("Talk to it with curl:")
    output.text(f"  {curl}")
    output.text("or from Python:")
    output.text("\n".join(f"  {line}" for line in python.splitlines()))
    output.text()
    output.text(f"Report: {page}")
    if stop:
        output.text(f"It goes on running: trtk status, trtk logs, trtk bench; trtk stop {quote(stop)} ends it.")
