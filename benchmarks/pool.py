"""Three models under a limit that holds two: mixed requests, the memory that is really taken, and the journal replayed.

python benchmarks/pool.py int4=engines/demo-int4_rtn int8=engines/demo-int8 fp16=engines/demo-fp16 --memory 2700MiB
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx

from toolkit.pool import journal
from toolkit.pool.control import GrpcControl
from toolkit.serve import records

TRTK = [sys.executable, "-m", "toolkit.cli"]
MIB = 1 << 20
NAME = "pool-benchmark"


def main() -> None:
    """Run it and print one JSON document; exit 1 where a claim does not hold."""
    asked = arguments()
    with tempfile.TemporaryDirectory() as state:
        os.environ["TRTK_STATE"] = state
        endpoint = started(asked)
        folder = Path(state) / "pools" / NAME
        watch = Watch(folder / "model_repository")
        try:
            url = endpoint["spec"]["companions"][0]["url"].removesuffix("/v1")
            answers = asyncio.run(all_answers(url, asked))
            states = asyncio.run(triton_states(endpoint["grpc_url"]))
        finally:
            watch.end()
            subprocess.run([*TRTK, "stop", NAME], check=True, capture_output=True)
        report = summary(answers, watch, folder / "journal.jsonl", states)
    print(json.dumps(report, indent=2))
    sys.exit(0 if report["holds"] else 1)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("engines", nargs="+", help="NAME=FOLDER")
    parser.add_argument("--memory", required=True)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--concurrency", type=int, default=24)
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--kv-tokens", default="4096")
    parser.add_argument("--min-residency", default="10s")
    return parser.parse_args()


def started(asked: argparse.Namespace) -> dict:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    names = ("--http-port", "--grpc-port", "--metrics-port", "--openai-port")
    options = [word for name, port in zip(names, ports, strict=True) for word in (name, str(port))]
    command = [*TRTK, "serve", *asked.engines, "--memory", asked.memory, "--kv-tokens", asked.kv_tokens]
    command += ["--min-residency", asked.min_residency, "--queue-timeout", "600s", "--detach", "--json", "--name", NAME]
    done = subprocess.run([*command, *options], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


class Watch:
    """Adds up what the stubs of one repository take, by /proc alone, four times a second."""

    def __init__(self, repository: Path) -> None:
        self.repository, self.samples, self.is_over = str(repository), [], threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self) -> None:
        while not self.is_over.wait(0.25):
            self.samples.append(sum(pss(pid) for pid in stubs(self.repository)))

    def end(self) -> None:
        self.is_over.set()
        self.thread.join()


def stubs(repository: str) -> list[int]:
    found = []
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = line.read_text(errors="replace").split("\0")
        except OSError:
            continue
        if words[0].endswith("triton_python_backend_stub") and words[1].startswith(repository):
            found.append(int(line.parent.name))
    return found


def pss(pid: int) -> int:
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))


async def all_answers(url: str, asked: argparse.Namespace) -> list[tuple[str, int, float, str]]:
    """Send the requests; the models change places in a fixed random order."""
    names = [engine.split("=")[0] for engine in asked.engines]
    order = random.Random(1).choices(names, k=asked.requests)
    places = asyncio.Semaphore(asked.concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=900, trust_env=False) as client:

        async def one(name: str) -> tuple[str, int, float, str]:
            body = {"model": name, "prompt": "The capital of France is", "max_tokens": asked.max_tokens}
            async with places:
                began = time.monotonic()
                answer = await client.post("/v1/completions", json=body | {"temperature": 0})
            return name, answer.status_code, time.monotonic() - began, answer.text

        return await asyncio.gather(*(one(name) for name in order))


async def triton_states(grpc_url: str) -> dict[str, str]:
    record = records.read(NAME)
    control = GrpcControl(grpc_url, header="closed", secret=record.secret)
    try:
        return await control.states()
    finally:
        await control.close()


def summary(answers: list, watch: Watch, path: Path, states: dict[str, str]) -> dict:
    events = list(journal.read(path))
    limit = next(event["limit_bytes"] for event in events if event["event"] == "started")
    replayed = journal.replayed(path)
    ready = sorted(name for name, state in replayed.items() if state == "ready")
    shown = sorted(name for name in replayed if states.get(name) == "READY")
    statuses = collections.Counter(status for _, status, _, _ in answers)
    waits = sorted(seconds for _, _, seconds, _ in answers)
    texts = collections.defaultdict(set)
    for name, status, _, text in answers:
        if status == 200:
            texts[name].add(json.loads(text)["choices"][0]["text"])
    loads = [event for event in events if event["event"] == "loaded"]
    return {
        "holds": statuses == {200: len(answers)} and max(watch.samples) <= limit and ready == shown,
        "statuses": dict(statuses),
        "requests_by_model": dict(collections.Counter(name for name, *_ in answers)),
        "answers_by_model": {name: sorted(found) for name, found in texts.items()},
        "limit_mib": limit // MIB,
        "peak_mib": max(watch.samples) // MIB,
        "samples": len(watch.samples),
        "loads": len(loads),
        "unloads": sum(event["event"] == "unloaded" for event in events),
        "cold_start_s": {event["model"]: event["load_s"] for event in loads},
        "latency_s": {"p50": round(statistics.median(waits), 2), "max": round(waits[-1], 2)},
        "journal_says_ready": ready,
        "triton_says_ready": shown,
    }


if __name__ == "__main__":
    main()
