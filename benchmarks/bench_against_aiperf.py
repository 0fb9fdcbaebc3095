"""What a load tester costs: `trtk bench` beside aiperf, against the same scripted server, on the same host.

    python3 -m venv /tmp/aiperf && /tmp/aiperf/bin/pip install aiperf==0.13.0
    python benchmarks/bench_against_aiperf.py --aiperf-python /tmp/aiperf/bin/python --tokenizer MODEL_FOLDER

Part 1, cost: a closed loop of 50 streams; output tokens for each CPU second of the whole client, its children included,
once with its start-up and the files it writes (numbers, no plots), and once without: the difference of a long and a
short run. `trtk grpc` streams over Triton's gRPC from the same timetable. Part 2, rate: an open loop; the highest rate
that the client keeps to 98 %, with its own p99 lag (sent after it was due) under 50 ms, by doubling and halving.
The server is tests/bench/mock_triton.py; it has a core to itself with --server-core. Both parts take about eight
minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
MAX_LAG_MS = 50.0
MIN_SHARE = 0.98
CLOSE_ENOUGH = 1.2


def main() -> None:
    """Print both parts."""
    options = parsed()
    with tempfile.TemporaryDirectory() as folder:
        theirs, ours = Aiperf(Path(folder), options), Trtk(Path(folder))
        if options.part != "rate":
            cost({"trtk": ours, "trtk grpc": Trtk(Path(folder), is_grpc=True), "aiperf": theirs}, options)
        if options.part != "cost":
            rates({"trtk": ours, "aiperf": theirs}, options)


def cost(clients: dict[str, Client], options: argparse.Namespace) -> None:
    """Print output tokens per CPU second."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in clients}
    for number in range(options.rounds):
        with mock({"ttft_s": 0.05, "gap_s": 0.02}, options) as urls:
            for name in sorted(clients, reverse=bool(number % 2)):
                short, long = (
                    cpu_seconds(clients[name].closed(urls, requests=requests, osl=options.osl))
                    for requests in (options.requests // 10, options.requests)
                )
                tokens = options.requests * options.osl
                whole, net = tokens / long, 0.9 * tokens / max(long - short, 1e-9)
                found[name].append((whole, net))
                print(json.dumps({"round": number + 1, "client": name, "tokens_per_cpu_s": round(whole),
                                  "without_start": round(net)}), flush=True)  # fmt: skip
    for place, label in ((0, "whole process"), (1, "without start-up")):
        for name in ("trtk", "trtk grpc"):
            ours, theirs = ([pair[place] for pair in found[one]] for one in (name, "aiperf"))
            ratios = sorted(a / b for a, b in zip(ours, theirs, strict=True))
            print(
                f"{label}: {name} {statistics.median(ours):,.0f} tokens/CPU-s, aiperf {statistics.median(theirs):,.0f};"
                f" ratio {statistics.median(ratios):.1f} ({ratios[0]:.1f} to {ratios[-1]:.1f})",
                flush=True,
            )


def rates(clients: dict[str, Client], options: argparse.Namespace) -> None:
    """Print the highest rate that each client keeps."""
    best = {name: highest(name, client, options) for name, client in clients.items()}
    print(f"highest rate: {best}; ratio {best['trtk'] / max(best['aiperf'], 1e-9):.1f}")


def highest(name: str, client: Client, options: argparse.Namespace) -> float:
    """Double the rate until it is not kept, then look between."""
    kept_at, lost_at, rate = 0.0, math.inf, options.first_rate
    for _ in range(options.most_runs):
        with mock({"ttft_s": 0.01}, options) as urls:
            share, lag_ms = client.open(urls, rate=rate, seconds=options.seconds)
        is_kept = share >= MIN_SHARE and lag_ms <= MAX_LAG_MS
        print(json.dumps({"client": name, "rate": rate, "share": round(share, 3), "lag_p99_ms": round(lag_ms, 1)}),
              flush=True)  # fmt: skip
        kept_at, lost_at = (rate, lost_at) if is_kept else (kept_at, rate)
        rate = float(round(2 * kept_at if math.isinf(lost_at) else math.sqrt(max(kept_at, lost_at / 4) * lost_at)))
        if lost_at <= CLOSE_ENOUGH * kept_at:
            break
    return kept_at


class Client:
    """One load tester."""

    def closed(self, urls: dict[str, str], *, requests: int, osl: int) -> list[str]:
        """Return the command of a closed loop."""
        raise NotImplementedError

    def open(self, urls: dict[str, str], *, rate: float, seconds: float) -> tuple[float, float]:
        """Run an open loop; return the share of the rate that was kept, and the p99 lag in ms."""
        raise NotImplementedError


class Trtk(Client):
    """This project's, over OpenAI's protocol or Triton's own."""

    def __init__(self, folder: Path, *, is_grpc: bool = False) -> None:
        self.output, self.is_grpc = folder / "trtk", is_grpc

    def command(self, urls: dict[str, str]) -> list[str]:
        """Return what both forms share."""
        url = urls["grpc"] if self.is_grpc else f"openai+{urls['http']}/v1"
        return [sys.executable, "-c", "from toolkit.cli import main; main()", "bench", "--url", url, "--isl", "32",
                "--warmup", "0", "-o", str(self.output), "--json", "--no-page"]  # fmt: skip

    def closed(self, urls: dict[str, str], *, requests: int, osl: int) -> list[str]:
        """Return the command of a closed loop."""
        return [*self.command(urls), "--concurrency", "50", "--requests", str(requests), "--osl", str(osl)]

    def open(self, urls: dict[str, str], *, rate: float, seconds: float) -> tuple[float, float]:
        """Run an open loop."""
        asked = ["--rate", str(rate), "--arrival", "constant", "--requests", str(round(rate * seconds)), "--osl", "4"]
        subprocess.run([*self.command(urls), *asked], check=False, capture_output=True)
        rows = [json.loads(line) for line in (self.output / "requests.jsonl").read_text().splitlines()]
        assert len(rows) == round(rate * seconds), len(rows)
        return kept([row["scheduled_s"] for row in rows], [row["sent_s"] for row in rows], rate)


class Aiperf(Client):
    """NVIDIA's."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.program, self.output = [options.aiperf_python, "-m", "aiperf"], folder / "aiperf"
        lend_tokenizer(options.tokenizer, folder / "hub")

    def command(self, url: str) -> list[str]:
        """Return what both forms share."""
        shutil.rmtree(self.output, ignore_errors=True)
        return [*self.program, "profile", "-m", "mock", "--url", url, "--endpoint-type", "chat", "--streaming",
                "--tokenizer", "local/model", "--isl", "32", "--use-server-token-count", "--ui", "none",
                "--artifact-dir", str(self.output)]  # fmt: skip

    def closed(self, urls: dict[str, str], *, requests: int, osl: int) -> list[str]:
        """Return the command of a closed loop."""
        return [*self.command(urls["http"]), "--concurrency", "50", "--request-count", str(requests), "--osl", str(osl)]

    def open(self, urls: dict[str, str], *, rate: float, seconds: float) -> tuple[float, float]:
        """Run an open loop."""
        asked = ["--request-rate", str(rate), "--request-rate-mode", "constant", "--osl", "4"]
        count = round(rate * seconds)
        subprocess.run(
            [*self.command(urls["http"]), *asked, "--request-count", str(count)], check=False, capture_output=True
        )
        lines = (self.output / "profile_export.jsonl").read_text().splitlines()
        rows = [json.loads(line)["metadata"] for line in lines]
        issued, sent = ([row[key] / 1e9 for row in rows] for key in ("credit_issued_ns", "request_start_ns"))
        return kept(issued, sent, rate)


def lend_tokenizer(tokenizer: Path, hub: Path) -> None:
    """Let aiperf find a tokenizer under the name local/model: it looks into a hub's cache only."""
    snapshot = hub / "models--local--model" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("0" * 40)
    for file in tokenizer.glob("*.json"):
        shutil.copy(file, snapshot)
    os.environ |= {"HF_HUB_CACHE": str(hub), "HF_HUB_OFFLINE": "1"}


def kept(due: list[float], sent: list[float], rate: float) -> tuple[float, float]:
    """Return the share of the rate at which requests left, and the p99 of how late each was."""
    took_s = max(sent) - min(sent)
    lags = sorted(1000 * (at - when) for when, at in zip(due, sent, strict=True))
    return (len(sent) - 1) / took_s / rate, lags[int(0.99 * (len(lags) - 1))]


def cpu_seconds(command: list[str]) -> float:
    """Run a command; return the CPU time of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:] + done.stdout[-2000:]
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


@contextlib.contextmanager
def mock(script: dict[str, float], options: argparse.Namespace) -> Iterator[dict[str, str]]:
    """Run the scripted server."""
    program = HERE.parent / "tests" / "bench" / "mock_triton.py"
    pinned = ["taskset", "-c", str(options.server_core)] if options.server_core is not None else []
    process = subprocess.Popen(
        [*pinned, sys.executable, str(program), json.dumps(script), os.devnull], stdout=subprocess.PIPE, text=True
    )
    try:
        ports = json.loads(process.stdout.readline())
        yield {scheme: f"{scheme}://127.0.0.1:{ports[scheme]}" for scheme in ("http", "grpc")}
    finally:
        # Not waited for by getrusage: its CPU time must not count as the client's.
        process.kill()
        process.wait()


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aiperf-python", required=True, help="the Python of an environment that has aiperf")
    parser.add_argument("--tokenizer", type=Path, required=True, help="a folder with tokenizer.json, for aiperf")
    parser.add_argument("--part", choices=["cost", "rate", "both"], default="both")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--requests", type=int, default=400)
    parser.add_argument("--osl", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--first-rate", type=float, default=50)
    parser.add_argument("--most-runs", type=int, default=8)
    parser.add_argument("--server-core", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    main()
