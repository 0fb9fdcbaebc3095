"""Quantize one model with trtk and with NVIDIA ModelOpt on the same text, and measure both checkpoints on other text.

    python benchmarks/quantize_against_modelopt.py MODEL_FOLDER CALIB_TEXT HELD_OUT_TEXT WORK \
        [--formats fp8 int8_sq nvfp4 int4] [--rounds 3] [--dtypes auto float32] [--rows 16]

Both read 16 x 512 tokens. ModelOpt runs once for each of --dtypes: `auto` loads the checkpoint's own dtype, as its
examples do, and `float32` is faster on a CPU without 16-bit arithmetic. Times are of whole processes; memory is
the peak resident set (RSS), which counts pages of mapped files as well. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

PEER = Path(__file__).with_name("modelopt_quantize.py")


def run_measured(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its seconds, its peak RSS in MiB and the CPU seconds of all its threads."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr
    said = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)  # ru_maxrss of this child alone
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if status:
        raise SystemExit(f"{' '.join(command)} failed: {said[-2000:]}")
    return time.monotonic() - started, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def commands(asked: argparse.Namespace, name: str) -> dict[str, list[str]]:
    """Return what is run for a format, by who runs it."""
    mine = [sys.executable, "-m", "toolkit.cli", "quantize", asked.model, "--quant", name, "--calib", asked.text]
    mine += ["--kv-cache", "none"]  # as ModelOpt's default configurations leave it
    found = {"trtk": [*mine, "-o", str(asked.work / f"trtk-{name}")]}
    for dtype in asked.dtypes:
        out = str(asked.work / f"modelopt-{dtype}-{name}")
        found[f"modelopt-{dtype}"] = [sys.executable, str(PEER), asked.model, name, asked.text, out, "--dtype", dtype]
    return found


def quality(asked: argparse.Namespace, folder: Path) -> dict[str, float]:
    """Return what `trtk eval` finds for a checkpoint on the held-out text."""
    command = [sys.executable, "-m", "toolkit.cli", "eval", str(folder), "--model", asked.model]
    command += ["--text", asked.held_out, "--rows", str(asked.rows), "--length", "512", "--json"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return json.loads(done.stdout)


def main() -> None:
    """Run the rounds, then evaluate, then print one table."""
    parser = argparse.ArgumentParser()
    for name in ("model", "text", "held_out"):
        parser.add_argument(name)
    parser.add_argument("work", type=Path)
    parser.add_argument("--formats", nargs="+", default=["fp8", "int8_sq", "nvfp4", "int4"])
    parser.add_argument("--dtypes", nargs="+", default=["auto", "float32"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=16)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    for name in asked.formats:
        runs: dict[str, list[tuple[float, float, float]]] = {}
        for _ in range(asked.rounds):
            for who, command in commands(asked, name).items():
                shutil.rmtree(asked.work / f"{who}-{name}", ignore_errors=True)
                runs.setdefault(who, []).append(run_measured(command))
        for who, measured in runs.items():
            found = quality(asked, asked.work / f"{who}-{name}")
            ratios = [theirs[0] / mine[0] for theirs, mine in zip(measured, runs["trtk"], strict=True)]
            cpu_s = statistics.median(run[2] for run in measured)
            print(
                f"{name:8} {who:17} {statistics.median(run[0] for run in measured):7.1f} s "
                f"({statistics.median(ratios):5.2f} x trtk, {min(ratios):.2f}-{max(ratios):.2f})  "
                f"CPU {cpu_s:6.1f} s  {max(run[1] for run in measured):5.0f} MiB  "
                f"KL {found['kl']:.4f}  ppl {found['ppl']:.2f} (base {found['ppl_base']:.2f})  "
                f"top1 {found['top1']:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
