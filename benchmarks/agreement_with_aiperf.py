"""Whether `trtk bench` and aiperf measure the same: the same load on one OpenAI endpoint, in turns.

    trtk serve engines/demo-int4 --detach --openai
    python benchmarks/agreement_with_aiperf.py --url http://127.0.0.1:9000 --tokenizer engines/demo-int4/tokenizer \\
        --aiperf-python /tmp/aiperf/bin/python

Each run sends prompts that the server has not seen, of the same words and length: prefix caching would favour who comes
second. Both tools' records are read and computed by the same code, from their own times: output tokens per second from
the first send to the last end, TTFT p50 and ITL p50. Exit code 1 where the median of the rounds' ratios is more than
--within from one. The machine has to be quiet.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench_against_aiperf import lend_tokenizer

from toolkit.bench import reading, vocabulary
from toolkit.bench.latency import itl_ms, percentile
from toolkit.bench.reading import Result

TRTK = [sys.executable, "-c", "from toolkit.cli import main; main()"]


def main() -> None:
    """Print each round, and how far apart the two are."""
    options = parsed()
    words = vocabulary.read(options.tokenizer)
    found: dict[str, list[dict[str, float]]] = {"trtk": [], "aiperf": []}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        lend_tokenizer(options.tokenizer, folder / "hub")

        def texts(name: str) -> list[str]:
            """Return prompts that the server has not seen."""
            return [words.made(seed=0, index=f"{name}/{i}", tokens=options.isl) for i in range(options.requests)]

        run("trtk", texts("warm-up"), folder / "warm-up", options)
        for number in range(options.rounds):
            for tool in sorted(found, reverse=bool(number % 2)):
                name = f"{number}-{tool}"
                measured = run(tool, texts(name), folder / name, options)
                found[tool].append(measured)
                print(json.dumps({"round": number + 1, "tool": tool, **measured}), flush=True)
    apart = {}
    for name in ("tokens_per_s", "ttft_p50_ms", "itl_p50_ms"):
        ours, theirs = ([row[name] for row in found[tool]] for tool in ("trtk", "aiperf"))
        ratios = [one / other - 1 for one, other in zip(ours, theirs, strict=True)]  # of neighbours: machines drift
        apart[name] = statistics.median(ratios)
        print(
            f"{name}: trtk {statistics.median(ours):,.2f}, aiperf {statistics.median(theirs):,.2f}, "
            f"{apart[name]:+.1%} ({min(ratios):+.1%} to {max(ratios):+.1%})"
        )
    sys.exit(max(map(abs, apart.values())) > options.within)


def run(tool: str, texts: list[str], result: Path, options: argparse.Namespace) -> dict[str, float]:
    """Run one tool on these prompts, and return its figures."""
    prompts, key = result.with_suffix(".jsonl"), "prompt" if tool == "trtk" else "text"
    prompts.write_text("".join(json.dumps({key: text}) + "\n" for text in texts))
    command = trtk(prompts, result, options) if tool == "trtk" else aiperf(prompts, result, options)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return figures(reading.read(result))


def trtk(prompts: Path, result: Path, options: argparse.Namespace) -> list[str]:
    """Return this project's command."""
    return [
        *TRTK, "bench", "--url", f"openai+{options.url}/v1", "--prompts", str(prompts),
        *(("--rate", str(options.rate), "--arrival", "constant") if options.rate else
          ("--concurrency", str(options.concurrency))),
        "--requests", str(options.requests), "--osl", str(options.osl), "--warmup", "0", "-o", str(result), "--json",
    ]  # fmt: skip


def aiperf(prompts: Path, result: Path, options: argparse.Namespace) -> list[str]:
    """Return aiperf's command."""
    return [
        options.aiperf_python, "-m", "aiperf", "profile", "-m", options.model, "--url", options.url, "--endpoint-type",
        "chat", "--streaming", "--tokenizer", "local/model", "--input-file", str(prompts), "--custom-dataset-type",
        "single_turn", "--osl", str(options.osl), "--extra-inputs", "ignore_eos:true", "temperature:0",
        "--use-server-token-count", "--request-count", str(options.requests), "--ui", "none",
        *(("--request-rate", str(options.rate), "--arrival-pattern", "constant") if options.rate else
          ("--concurrency", str(options.concurrency))),
        "--artifact-dir", str(result),
    ]  # fmt: skip


def figures(result: Result) -> dict[str, float]:
    """Return what is compared."""
    ok = [record for record in result.records if record.outcome == "ok"]
    # From the send, as aiperf counts: what a tool takes from a slot that is free to its send is its own.
    waits = sorted(1000 * (record.first_token_s - record.sent_s) for record in ok if record.first_token_s is not None)
    took_s = max(record.end_s for record in ok) - min(record.sent_s for record in ok)
    return {
        "requests": len(ok),
        "output_tokens": sum(record.output_tokens for record in ok),
        "tokens_per_s": round(sum(record.output_tokens for record in ok) / took_s, 2),
        "ttft_p50_ms": round(percentile(waits, 50), 3),
        "itl_p50_ms": round(percentile(sorted(value for r in ok if (value := itl_ms(r)) is not None), 50), 4),
    }


def parsed() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", required=True, help="of the OpenAI endpoint, without /v1")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokenizer", type=Path, required=True, help="the model's folder with tokenizer.json")
    parser.add_argument("--aiperf-python", required=True, help="the Python of an environment that has aiperf")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--concurrency", type=int, default=8)
    parser.add_argument("--rate", type=float, help="requests per second at constant gaps, in place of --concurrency")
    parser.add_argument("--requests", type=int, default=80)
    parser.add_argument("--isl", type=int, default=128)
    parser.add_argument("--osl", type=int, default=64)
    parser.add_argument("--within", type=float, default=0.05)
    return parser.parse_args()


if __name__ == "__main__":
    main()
