"""What dies is seen, started again within the limit, and leaves nothing: with real processes, killed for real."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from toolkit import processes, serve
from toolkit.errors import ServerError
from toolkit.serve import companions, probing, records, starting, stopping, supervising
from toolkit.serve.backend import MARKER
from toolkit.specs import Companion, to_json

pytestmark = pytest.mark.server

#: A companion that shows what it was given and answers, until it is told to end.
BESIDE = """
import http.server, os, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(" ".join(os.environ.get(name, "-") for name in sys.argv[2:]).encode())
    def log_message(self, *words): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
#: A foreground `trtk serve`, as far as its server can tell.
FOREGROUND = """
import json, sys
from toolkit import serve
from toolkit.specs import ServeSpec, from_json
endpoint = serve.start(from_json(ServeSpec, json.loads(sys.argv[1])), is_attached=True)
print("ready", flush=True)
serve.supervise(endpoint, say=lambda line: print(line, flush=True))
"""
#: Answers until the file FLAG is there; the next start takes the file away.
FAILS_LATER = """
from pathlib import Path
import triton_python_backend_utils as pb_utils
FLAG = Path("{flag}")
class TritonPythonModel:
    def initialize(self, args):
        FLAG.unlink(missing_ok=True)
    def execute(self, requests):
        if FLAG.exists():
            raise ValueError("the device is lost")
        for request in requests:
            sender = request.get_response_sender()
            text = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("text_output", text)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""
#: Answers until the file FLAG is there; then its thread, which does the work, stays where it is.
HANGS_LATER = """
import queue, threading, time
from pathlib import Path
import triton_python_backend_utils as pb_utils
FLAG = Path("{flag}")
class TritonPythonModel:
    def initialize(self, args):
        FLAG.unlink(missing_ok=True)
        self.inbox = queue.SimpleQueue()
        threading.Thread(target=self.work, daemon=True).start()
    def execute(self, requests):
        for request in requests:
            self.inbox.put((request.get_response_sender(), request))
    def work(self):
        while True:
            sender, request = self.inbox.get()
            while FLAG.exists():
                time.sleep(0.1)
            text = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("text_output", text)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
"""


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Restarts wait long enough to be seen, and no longer."""
    monkeypatch.setattr(supervising, "BACKOFF_S", 0.2)


@pytest.fixture
def beside(spec, unused_port):
    """The spec with a companion."""
    url = f"http://127.0.0.1:{unused_port}/"
    companion = Companion(
        name="echo-door",
        argv=(sys.executable, "-c", BESIDE, str(unused_port), MARKER, "TRTK_CLOSED_SECRET", "COLOUR"),
        environment={"COLOUR": "green"},
        ready_url=url,
        url=url,
        ports={"--door-port": unused_port},
    )
    return dataclasses.replace(spec, companions=(companion,), max_restarts=3)


@pytest.fixture
def unused_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def status():
    (found,) = serve.running()
    return found


def until(is_so, timeout_s=40.0):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, to_json(serve.running())
        time.sleep(0.05)


def seen_within_5_s(state):
    """`trtk status` tells within five seconds of a kill that the server is no good."""
    began = time.monotonic()
    until(lambda: status().state != state or status().restarts > 0, timeout_s=5)
    return time.monotonic() - began


def nothing_left(server_id, witness):
    marked = processes.marked(MARKER, server_id)
    regions = [path for path in Path("/dev/shm").iterdir() if server_id in path.name]
    return (marked, regions, witness.lines(), serve.running()) == (set(), [], [], ())


def test_what_dies_is_started_again_and_nothing_stays_at_the_end(beside, witness, tmp_path):
    configuration, outside = tmp_path / "state" / "door.json", tmp_path / "outside.json"
    for path in (configuration, outside):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    endpoint = serve.start(dataclasses.replace(beside, leftovers=(str(configuration), str(outside))))
    record = records.read("echo")
    server_id, door = record.server_id, status().companions[0]
    with urllib.request.urlopen(door.url, timeout=5) as answer:
        assert answer.read().decode() == f"{server_id} {record.secret} green"
    assert (door.name, door.state, status().state) == ("echo-door", "ready", "ready")
    serve.start_supervisor(endpoint)

    os.kill(door.pid, signal.SIGKILL)
    seen_within_5_s("ready")
    until(lambda: status().state == "ready" and status().restarts == 1)
    assert witness.pids("tritonserver") == [endpoint.pid]
    (again,) = status().companions
    assert (again.restarts, again.pid != door.pid) == (1, True)
    assert status().last_failure.startswith(f"The echo-door of 'echo' (pid {door.pid}) ended")

    os.kill(endpoint.pid, signal.SIGKILL)
    seen_within_5_s("ready")
    until(lambda: status().state == "ready" and status().restarts == 2)
    assert status().last_failure.startswith(f"The server 'echo' (pid {endpoint.pid}) ended")
    assert status().endpoint.pid not in {endpoint.pid, 0}
    assert processes.process(again.pid) is None

    assert configuration.is_file()
    (stub,) = witness.pids("triton_python_backend_stub")
    os.kill(stub, signal.SIGKILL)
    until(lambda: status().state == "ready" and status().restarts == 3)
    assert status().last_failure == f"A model's Python process (pid {stub}) of 'echo' died."

    supervisor = records.read("echo").owner
    os.kill(supervisor.pid, signal.SIGKILL)
    until(lambda: not status().is_supervised, timeout_s=5)
    assert status().state == "ready"
    stopped = serve.stop("echo")
    assert (stopped.was_alive, stopped.killed) == (True, 0)
    assert nothing_left(server_id, witness)
    assert (configuration.exists(), outside.exists()) == (False, True)


def test_one_failure_too_many_ends_the_server_and_status_says_why(beside, witness):
    endpoint = serve.start(dataclasses.replace(beside, max_restarts=1))
    serve.start_supervisor(endpoint)
    server_id, supervisor = records.read("echo").server_id, records.read("echo").owner
    (Path(beside.repository) / "ensemble/1/model.py").write_text("import nosuchlibrary\n")

    os.kill(endpoint.pid, signal.SIGKILL)
    until(lambda: status().state == "dead")

    assert status().last_failure == (
        "Model 'ensemble' could not be loaded: ModuleNotFoundError: No module named 'nosuchlibrary'."
    )
    assert (status().restarts, status().is_supervised) == (1, False)
    assert not processes.is_alive(supervisor)
    assert processes.marked(MARKER, server_id) == set()
    assert "It is not started again." in serve.log_path("echo").read_text()
    assert serve.stop("echo").was_alive is False
    assert nothing_left(server_id, witness)


def test_without_a_restart_a_dead_companion_ends_its_server(beside, witness):
    endpoint = serve.start(dataclasses.replace(beside, max_restarts=0))
    server_id = records.read("echo").server_id
    os.kill(status().companions[0].pid, signal.SIGKILL)
    (door,) = status().companions
    assert (status().state, status().problem) == ("not ready", f"its echo-door is dead (pid {door.pid})")

    with pytest.raises(ServerError) as failed:
        serve.supervise(endpoint, say=print)

    assert str(failed.value).splitlines()[0] == f"The echo-door of 'echo' (pid {door.pid}) ended by SIGKILL."
    assert witness.lines() == []
    serve.stop("echo")
    assert nothing_left(server_id, witness)


def test_a_server_that_answers_with_errors_alone_is_started_again(spec, tmp_path):
    flag = tmp_path / "flag"
    (Path(spec.repository) / "ensemble/1/model.py").write_text(FAILS_LATER.format(flag=flag))
    endpoint = serve.start(dataclasses.replace(spec, max_restarts=1, probe_every_s=0.3))
    serve.start_supervisor(endpoint)
    time.sleep(1.5)
    assert (status().state, status().restarts) == ("ready", 0)

    flag.touch()
    until(lambda: status().state == "ready" and status().restarts == 1)

    assert "answered a request for one token with" in status().last_failure
    assert "the device is lost" in status().last_failure


def test_a_server_whose_engine_hangs_is_started_again(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(probing, "PROBE_TIMEOUT_S", 1.0)
    flag, said = tmp_path / "flag", []
    (Path(spec.repository) / "ensemble/1/model.py").write_text(HANGS_LATER.format(flag=flag))
    endpoint = serve.start(dataclasses.replace(spec, max_restarts=1, probe_every_s=0.3))
    flag.touch()
    assert status().state == "ready"  # for all that Triton knows
    deadline = time.monotonic() + 60

    def look():
        assert time.monotonic() < deadline, said
        if any("is ready again" in line for line in said):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve.supervise(endpoint, say=said.append, look=look)

    assert said[0].startswith("Model 'ensemble' did not answer a request for one token in 1 s. Starting it again")
    assert (status().state, status().restarts, flag.exists()) == ("ready", 1, False)


def test_a_full_disk_does_not_keep_a_server_down(spec, small_disk, monkeypatch, witness):
    disk = small_disk("2m")
    monkeypatch.setenv("TRTK_STATE", str(disk))
    endpoint = serve.start(dataclasses.replace(spec, max_restarts=3))
    serve.start_supervisor(endpoint)
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as stream:
        while True:
            stream.write(b"\0" * 4096)

    os.kill(endpoint.pid, signal.SIGKILL)
    seen_within_5_s("ready")
    until(lambda: status().state == "ready" and status().restarts == 1)

    assert status().last_failure.startswith(f"The server 'echo' (pid {endpoint.pid}) ended")
    assert (status().is_supervised, status().endpoint.pid) == (True, *witness.pids("tritonserver"))
    serve.stop("echo")
    assert witness.lines() == []


def test_a_killed_trtk_takes_server_and_companions_along(beside, witness):
    running = subprocess.Popen(
        [sys.executable, "-c", FOREGROUND, json.dumps(to_json(beside))], stdout=subprocess.PIPE, text=True
    )
    try:
        assert running.stdout.readline() == "ready\n"
        server_id = records.read("echo").server_id
        assert len(processes.marked(MARKER, server_id)) >= 3
    finally:
        running.kill()
        running.communicate()

    until(lambda: nothing_left(server_id, witness))


def test_a_companion_that_does_not_become_ready_is_an_error_and_nothing_stays(beside, witness):
    (door,) = beside.companions
    broken = dataclasses.replace(door, argv=(sys.executable, "-c", "print('no door today'); raise SystemExit(3)"))

    with pytest.raises(ServerError) as failed:
        serve.start(dataclasses.replace(beside, companions=(broken,)))

    assert "ended with exit code 3." in str(failed.value).splitlines()[0]
    assert "no door today" in str(failed.value)
    assert (witness.lines(), serve.running()) == ([], ())


def test_a_stop_wins_over_a_restart_that_is_under_way(beside, witness):
    endpoint = serve.start(dataclasses.replace(beside, max_restarts=100))
    serve.start_supervisor(endpoint)
    server_id = records.read("echo").server_id
    os.kill(endpoint.pid, signal.SIGKILL)
    until(lambda: status().last_failure != "")

    serve.stop("echo")

    time.sleep(1.5)
    assert nothing_left(server_id, witness)


def test_nothing_of_a_server_is_started_once_a_stop_has_begun(beside, witness):
    serve.start(beside)
    record = stopping._marked(records.read("echo"))
    (door,) = status().companions
    os.kill(door.pid, signal.SIGKILL)

    with pytest.raises(records.StoppedMeanwhile, match="was stopped by another command"):
        starting.bring_up(record)
    with pytest.raises(records.StoppedMeanwhile):
        companions.start(record, beside.companions[0])
    serve.supervise(record.endpoint, say=print)

    assert (status().state, status().problem) == ("not ready", "it is being stopped")
    assert (len(witness.pids("tritonserver")), status().companions[0].state) == (1, "dead")
