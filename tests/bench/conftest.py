import contextlib
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass
class Served:
    """A scripted server that runs, and what it really did."""

    process: subprocess.Popen
    grpc: str
    http: str
    log: Path

    def url(self, scheme: str) -> str:
        return {"grpc": self.grpc, "http": self.http, "openai+http": f"openai+{self.http}/v1"}[scheme]

    def truth(self) -> dict:
        return {row["id"]: row for row in map(json.loads, self.log.read_text().splitlines())}


@pytest.fixture
def serve(tmp_path):
    """Start scripted servers; all are gone when the test ends."""
    with contextlib.ExitStack() as stack:

        def start(**script) -> Served:
            log = tmp_path / f"log-{len(list(tmp_path.iterdir()))}.jsonl"
            program = Path(__file__).with_name("mock_triton.py")
            process = subprocess.Popen(
                [sys.executable, str(program), json.dumps(script), str(log)], stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.stdout.close)
            stack.callback(process.wait)
            stack.callback(process.kill)
            ports = json.loads(process.stdout.readline())
            return Served(process, f"grpc://127.0.0.1:{ports['grpc']}", f"http://127.0.0.1:{ports['http']}", log)

        yield start
