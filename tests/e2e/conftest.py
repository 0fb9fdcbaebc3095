"""The real thing, built once: the demo model, its engines, and a server on the int4 one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

TRTK = [sys.executable, "-c", "from toolkit.cli import main; main()"]
SYSTEM = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"


def run_trtk(*arguments, cwd=None, env=None, timeout=600):
    """Run the command line in a process of its own; return (exit code, stdout, stderr)."""
    done = subprocess.run(
        [*TRTK, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def chat(question):
    """Return a question in the demo model's chat template, typed out."""
    return f"{SYSTEM}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A working folder with its own state; the download cache is shared between runs where `make test` gives one."""
    folder = tmp_path_factory.mktemp("work")
    shared = os.environ.get("TRTK_TEST_CACHE")
    return folder, {
        "TRTK_STATE": str(folder / "state"),
        "TRTK_CACHE": shared or str(tmp_path_factory.getbasetemp() / "cache"),
    }


@pytest.fixture(scope="session")
def built(place):
    """Build one quantization of the demo model for the CPU, once; return its folder and the --json document."""
    folder, env = place
    made = {}

    def build(quant):
        if quant not in made:
            target = Path("engines") / f"demo-{quant}"
            command = ("build", "demo", "--gpu", "cpu", "--quant", quant, "-o", target, "--json")
            code, out, err = run_trtk(*command, cwd=folder, env=env)
            assert code == 0, err
            made[quant] = folder / target, json.loads(out)
        return made[quant]

    return build


@pytest.fixture(scope="session")
def served(place, built):
    """Serve the int4 demo model; yield the endpoint document of `trtk serve --detach --json`."""
    folder, env = place
    engine, _ = built("int4")
    ports = free_ports(4)
    options = ("--http-port", ports[0], "--grpc-port", ports[1], "--metrics-port", ports[2])
    options += ("--openai", "--openai-port", ports[3], "--audit", folder / "audit.jsonl")
    code, out, err = run_trtk("serve", engine, "--detach", "--json", *options, cwd=folder, env=env)
    assert code == 0, err
    yield json.loads(out)
    code, _, err = run_trtk("stop", "--all", cwd=folder, env=env)
    assert code == 0, err


def free_ports(count):
    """Return ports that the kernel says are free."""
    import socket

    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
