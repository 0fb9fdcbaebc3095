"""Three models under a limit that holds two, in a real Triton, through the real gateway."""

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from toolkit.cli import main
from toolkit.pool import journal
from toolkit.pool.control import GrpcControl
from toolkit.pool.loading import DRAIN_TIMEOUT_S
from toolkit.serve import records
from toolkit.specs import from_json

pytestmark = [pytest.mark.engine, pytest.mark.server, pytest.mark.slow]
MIB = 1 << 20
LIMIT_MIB, REQUESTS, IN_FLIGHT = 1150, 100, 40
TRTK = [sys.executable, "-m", "toolkit.cli"]
BODY = {"text_input": "The quick brown fox", "max_tokens": 6}


def trtk(*words, cwd):
    done = subprocess.run([*TRTK, *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Served:
    """A pool that runs, and what /proc shows of its models' processes."""

    def __init__(self, document, folder):
        self.document, self.folder = document, folder
        self.url = document["spec"]["companions"][0]["url"].removesuffix("/v1")
        self.pool = folder / "state/pools/tiny"
        self.peak_bytes, self.is_over = 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def stubs(self, model=""):
        found = {}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_text(errors="replace").split("\0")
                if words[0].endswith("python_backend_stub") and words[1].startswith(
                    f"{self.pool}/model_repository/{model}"
                ):
                    found[int(path.parent.name)] = words[1]
        return found

    def watch(self):
        while not self.is_over.wait(0.2):
            taken = 0
            for pid in self.stubs():
                with contextlib.suppress(OSError):
                    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
                    taken += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            self.peak_bytes = max(self.peak_bytes, taken)

    def ask(self, model, **changes):
        url = f"{self.url}/v2/models/{model}/generate"
        return httpx.post(url, json=BODY | changes, timeout=120, trust_env=False)

    def ps(self):
        return json.loads(trtk("ps", "--json", cwd=self.folder))

    def events(self):
        return list(journal.read(self.pool / "journal.jsonl"))


@pytest.fixture(scope="module")
def served(tmp_path_factory, llama):
    folder = tmp_path_factory.mktemp("pool")
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    options = zip(("--http-port", "--grpc-port", "--metrics-port", "--openai-port"), ports, strict=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRTK_STATE", str(folder / "state"))
        patch.setenv("TRTK_CACHE", os.environ.get("TRTK_TEST_CACHE") or str(folder / "cache"))
        trtk("build", llama[0], "--gpu", "cpu", "--quant", "fp16", "-o", "engines/tiny", cwd=folder)
        names = [f"{name}=engines/tiny" for name in "abc"]
        limits = (
            "--memory",
            f"{LIMIT_MIB}MiB",
            "--kv-tokens",
            2048,
            "--min-residency",
            "3s",
            "--queue-timeout",
            "150s",
        )
        words = ("serve", *names, *limits, "--name", "tiny", "--detach", "--json")
        made = Served(json.loads(trtk(*words, *(word for pair in options for word in pair), cwd=folder)), folder)
        made.thread.start()
        yield made
        made.is_over.set()
        made.thread.join()
        trtk("stop", "tiny", cwd=folder)
        assert made.stubs() == {}


@pytest.fixture(autouse=True)
def _its_state(served, monkeypatch):
    monkeypatch.setenv("TRTK_STATE", str(served.folder / "state"))


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("a", "--memory", "300MiB"), 3, "Error: The model 'a' takes "),
        (
            ("a", "b", "--memory", "700MiB", "--pin", "a", "--kv-tokens", "64"),
            3,
            "with it beside a, pinned, the device would hold ",
        ),
        (("a", "b"), 2, "Error: 2 models on one device need a limit.\nHint: --memory "),
        (("a", "--pin", "a"), 2, "Error: --pin is for several models on one device.\nHint: Add --memory"),
        (("a", "--memory", "2g", "--pin", "z"), 2, "Error: There is no model of this pool named 'z'."),
        (("a", "--memory", "2g", "--kv-tokens", "z=5"), 2, "Error: There is no model of this pool named 'z'."),
        (("a", "--memory", "2g", "--kv-tokens", "many"), 2, "Error: --kv-tokens 'many' is no number of tokens."),
        (("a", "--memory", "2g", "--backend", "docker"), 2, "with the embedded backend, not with docker"),
        (("a", "a", "--memory", "2g"), 2, "Error: Two models would be called 'a'."),
        (("--memory", "2g"), 2, "Error: --memory needs the models to be named."),
        (("a", "--memory", "lots"), 2, "Error: --memory 'lots' is no amount."),
    ],
)
def test_what_cannot_be_a_pool_is_refused_before_anything_starts(served, monkeypatch, words, code, said):
    monkeypatch.chdir(served.folder)
    engines = [f"{word}=engines/tiny" if len(word) == 1 else word for word in words]
    engines = [word if words[at - 1] != "--pin" else words[at] for at, word in enumerate(engines)]

    done = CliRunner().invoke(main, ["serve", *engines, "--dry-run"])

    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr


def test_a_dry_run_says_what_each_model_takes_and_a_running_pool_is_left_alone(served, monkeypatch):
    monkeypatch.chdir(served.folder)
    words = ["serve", "a=engines/tiny", "b=engines/tiny", "--memory", "2g", "--kv-tokens", "b=64", "--name", "tiny"]

    shown = CliRunner().invoke(main, [*words, "--dry-run", "--json"])
    refused = CliRunner().invoke(main, words)

    document = json.loads(shown.stdout)
    a, b = document["pool"]["models"]
    assert (shown.exit_code, b["kv_tokens"]) == (0, 64)
    assert b["size"]["kv_bytes"] == 64 * b["kv_bytes_per_token"] < a["size"]["kv_bytes"]
    assert document["sizes_bytes"]["b"] == sum(b["size"].values())
    assert refused.exit_code == 4
    assert "A server named 'tiny' is already running" in refused.stderr


def test_mixed_requests_all_succeed_and_the_journal_explains_every_load_and_unload(served):
    order = random.Random(3).choices("abc", k=REQUESTS)

    async def run():
        places = asyncio.Semaphore(IN_FLIGHT)
        async with httpx.AsyncClient(base_url=served.url, timeout=200, trust_env=False) as client:

            async def one(name, is_openai):
                asked = {
                    "model": name,
                    "prompt": BODY["text_input"],
                    "max_tokens": BODY["max_tokens"],
                    "temperature": 0,
                }
                async with places:
                    if is_openai:
                        return await client.post("/v1/completions", json=asked)
                    return await client.post(f"/v2/models/{name}/generate", json=BODY)

            return await asyncio.gather(*(one(name, at % 2) for at, name in enumerate(order)))

    with plain_client(served) as statuses:
        answers = asyncio.run(run())

    assert 200 in statuses
    assert set(statuses) <= {200, 400, 404, 500, 503}  # and none of them hung
    assert [answer.status_code for answer in answers] == [200] * REQUESTS
    texts = {answer.json()["text_output"] for answer in answers[::2]}
    assert len(texts | {answer.json()["choices"][0]["text"] for answer in answers[1::2]}) == 1  # thrice the same model
    assert 100 * MIB < served.peak_bytes <= LIMIT_MIB * MIB
    begun = [event for event in served.events() if event["event"] in {"load_begun", "unload_begun"}]
    assert {event["model"] for event in begun} == set("abc")
    assert all(event["why"] for event in begun)
    assert sum(event.get("served", 0) for event in begun) <= REQUESTS
    # A stream that is not read to its end would keep its ensemble in Triton until nobody waits for it any more.
    assert max(event["unload_s"] for event in served.events() if event["event"] == "unloaded") < DRAIN_TIMEOUT_S
    assert ready_in_triton(served) == {
        name for name, state in journal.replayed(served.pool / "journal.jsonl").items() if state == "ready"
    }


@contextlib.contextmanager
def plain_client(served):
    """Ask Triton itself for one of the models all the time, past the gateway, whether it is loaded or not."""
    statuses, is_over = [], threading.Event()

    def run():
        url = f"{served.document['http_url']}/v2/models/a/generate"
        while not is_over.wait(0.02):
            statuses.append(httpx.post(url, json=BODY, timeout=100, trust_env=False).status_code)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield statuses
    finally:
        is_over.set()
        thread.join()


def ready_in_triton(served):
    async def states():
        record = records.read("tiny")
        control = GrpcControl(served.document["grpc_url"], header="closed", secret=record.secret)
        try:
            return await control.states()
        finally:
            await control.close()

    return {name for name, state in asyncio.run(states()).items() if name in "abc" and state == "READY"}


def test_ps_shows_what_is_loaded_and_what_a_cold_start_took(served):
    served.ask("a")
    for _ in range(50):
        models = {one["name"]: one for one in served.ps()["models"]}
        if not models["a"]["in_flight"]:
            break
        time.sleep(0.1)

    shown = models["a"]
    assert (shown["state"], shown["in_flight"], shown["kv_tokens"]) == ("ready", 0, 2048)
    assert shown["cold_start_s"] > 0
    assert 50 * MIB < shown["measured_bytes"] <= shown["size_bytes"]
    assert served.ps()["held_bytes"] <= LIMIT_MIB * MIB
    lines = trtk("ps", "tiny", "--journal", cwd=served.folder).splitlines()
    assert any("load_begun" in line and "why=" in line for line in lines)


def test_who_does_not_know_the_secret_cannot_load_or_unload(served):
    served.ask("a")
    for action in ("load", "unload"):
        url = f"{served.document['http_url']}/v2/repository/models/a/{action}"
        answer = httpx.post(url, json={}, timeout=30, trust_env=False)
        assert (answer.status_code, "restricted" in answer.text) == (403, True)
    assert served.ask("a").status_code == 200


def test_a_model_that_is_not_served_is_404_and_a_path_is_no_name(served):
    for name in ("other", "..%2Fa", "a.preprocessing"):
        assert served.ask(name).status_code == 404


def test_a_model_whose_process_is_killed_is_loaded_again(served):
    served.ask("a")
    (pid,) = [pid for pid, path in served.stubs("a.tensorrt_llm").items()]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while not any(event["event"] == "broken" for event in served.events()):
        assert time.monotonic() < deadline
        time.sleep(0.1)

    assert served.ask("a").status_code == 200
    said = [event["why"] for event in served.events() if event["event"] == "broken"]
    assert said == [f"its process {pid} died"]


def test_a_triton_that_is_killed_comes_back_with_its_pool(served):
    served.ask("a")
    os.kill(from_json(records.Record, json.loads(_record(served).read_text())).endpoint.pid, signal.SIGKILL)
    deadline = time.monotonic() + 120
    while not _answers(served):
        assert time.monotonic() < deadline
        time.sleep(0.5)

    after = [event["event"] for event in served.events()]
    last_start = max(at for at, event in enumerate(after) if event == "started")
    assert "lost" in after or last_start > 0
    assert after[-1] == "loaded"


def _answers(served):
    with contextlib.suppress(httpx.TransportError):  # the gateway may be started again, too
        answer = served.ask("a")
        assert answer.status_code in {200, 400, 429, 500, 503}
        return answer.status_code == 200
    return False


def _record(served):
    return served.folder / "state/servers/tiny.json"
