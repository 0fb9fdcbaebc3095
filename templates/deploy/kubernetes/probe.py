"""Does the engine work? Exit 0 where it does: what it did for others since the last look counts, else one token."""

import argparse
import contextlib
import http.client
import json
import re
import sys
import urllib.error
import urllib.request
from pathlib import Path

#: No proxy of the environment is asked about loopback.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
QUICK_S = 3.0
UNKNOWN = -1.0


def main(arguments: list[str] | None = None) -> int:
    """Look; return an exit code."""
    asked = parse(arguments)
    if not is_ready(asked):
        return said("Triton is not ready.")
    last = Path(asked.state)
    before, now = remembered(last), progress(asked)
    why = refusal(asked) if now <= before or before == UNKNOWN else ""
    after = progress(asked)
    # Remembered after a failure too: a full queue turns probes away, and the next one sees what was done for others.
    with contextlib.suppress(OSError):  # a full disk is no reason to end a server
        last.write_text(str(after))
    # A busy server lets a probe wait; it works for others in the meantime.
    if why and not UNKNOWN < now < after:
        return said(f"The engine made no token in {asked.timeout:g} s: {why}.")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return what was asked on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--http", type=int, default=8000)
    parser.add_argument("--metrics", type=int, default=8002)
    parser.add_argument("--model", default="ensemble")
    parser.add_argument("--timeout", type=float, default=15.0)
    parser.add_argument("--state", default="/tmp/trtk-probe", help="remembers what was answered at the last look")
    return parser.parse_args(arguments)


def is_ready(asked: argparse.Namespace) -> bool:
    """Whether Triton says that all its models are loaded."""
    try:
        with OPENER.open(f"http://127.0.0.1:{asked.http}/v2/health/ready", timeout=QUICK_S) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def remembered(last: Path) -> float:
    """Return the progress at the last look; UNKNOWN at the first one."""
    try:
        found = float(last.read_text())
    except (OSError, ValueError):
        return UNKNOWN
    return found if found >= 0 else UNKNOWN


def progress(asked: argparse.Namespace) -> float:
    """Return the requests answered and the engine's steps so far: a long answer is nothing but steps for minutes."""
    try:
        with OPENER.open(f"http://127.0.0.1:{asked.metrics}/metrics", timeout=QUICK_S) as answer:
            text = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return UNKNOWN
    answers = rf'^nv_inference_request_success\{{model="{re.escape(asked.model)}"[^}}]*\}} (\S+)$'
    steps = r'^nv_trt_llm_general_metrics\{[^}]*general_type="iteration_counter"[^}]*\} (\S+)$'
    return sum(float(count) for line in (answers, steps) for count in re.findall(line, text, re.MULTILINE))


def refusal(asked: argparse.Namespace) -> str:
    """Ask for one token; return why none came."""
    body = json.dumps({"text_input": "Hi", "max_tokens": 1, "stream": False}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{asked.http}/v2/models/{asked.model}/generate",
        data=body,
        headers={"Content-Type": "application/json"},
    )
    try:
        with OPENER.open(request, timeout=asked.timeout) as answer:
            answer.read()
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    return ""


def said(why: str) -> int:
    """Say it where `kubectl describe pod` shows it."""
    print(why)  # noqa: T201 - this is its output
    return 1


if __name__ == "__main__":
    sys.exit(main())
