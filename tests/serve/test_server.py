"""The life of a real tritonserver: started, asked, killed, stopped; `ps` says what is left."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit import serve
from toolkit.errors import MissingError, ServerError, UsageError
from toolkit.serve import records, triton_http
from toolkit.specs import to_json

pytestmark = pytest.mark.server

#: A client that asks one thing over a gRPC stream, says so, and never closes the stream.
OPEN_STREAM = """
import sys, time
import numpy as np
import tritonclient.grpc as grpc
client = grpc.InferenceServerClient(sys.argv[1])
client.start_stream(lambda result, error: print("answered", error, flush=True))
text = grpc.InferInput("text_input", [1], "BYTES")
text.set_data_from_numpy(np.array([b"x"], dtype=object))
times = grpc.InferInput("max_tokens", [1], "INT32")
times.set_data_from_numpy(np.array([1], dtype=np.int32))
client.async_stream_infer("ensemble", [text, times])
time.sleep(300)
"""


def test_a_started_server_has_answered_and_a_stopped_one_leaves_nothing(spec, witness):
    steps = []

    endpoint = serve.start(spec, on_progress=lambda step, done, total: steps.append((step, done <= total, total)))

    (region,) = witness.regions()
    (status,) = serve.running()
    assert (status.endpoint, status.state, status.models) == (endpoint, "ready", ("ensemble",))
    assert 0 < status.uptime_s < 60
    assert witness.pids("tritonserver") == [endpoint.pid]
    assert len(witness.pids("triton_python_backend_stub")) == 1
    assert region.is_file()
    assert "Started HTTPService" in serve.log_path("echo").read_text()
    assert set(steps) == {("Starting Triton (at most 60 s)", True, 60)}
    assert not triton_http.is_ready(endpoint.http_url, "another server's id")

    stopped = serve.stop("echo")

    assert (stopped.name, stopped.was_alive, stopped.killed, stopped.shared_memory_removed) == ("echo", True, 0, 0)
    assert (witness.lines(), region.exists(), serve.running()) == ([], False, ())
    with pytest.raises(UsageError, match="no server named 'echo'"):
        serve.stop("echo")


def test_a_server_is_stopped_on_a_full_disk_too(spec, witness, small_disk, monkeypatch):
    disk = small_disk("1m")
    monkeypatch.setenv("TRTK_STATE", str(disk / "state"))
    serve.start(spec)
    with (disk / "filler").open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 100)

    serve.stop("echo")

    assert (witness.lines(), serve.running()) == ([], ())


def test_a_server_with_an_open_grpc_stream_is_stopped_all_the_same(spec, witness):
    endpoint = serve.start(spec)
    (region,) = witness.regions()
    client = subprocess.Popen([sys.executable, "-c", OPEN_STREAM, endpoint.grpc_url], stdout=subprocess.PIPE, text=True)
    try:
        assert client.stdout.readline() == "answered None\n"
        started = time.monotonic()

        stopped = serve.stop("echo")

        assert time.monotonic() - started < spec.exit_timeout_s + 5
        assert (witness.lines(), region.exists(), serve.running()) == ([], False, ())
        assert (stopped.killed, stopped.shared_memory_removed) == (2, 1)
        assert "Exit timeout expired" in serve.log_path("echo").read_text()
    finally:
        client.kill()
        client.communicate()


def test_a_killed_tritonserver_is_dead_in_the_status_and_stop_cleans_up_after_it(spec, witness):
    endpoint = serve.start(spec)
    (region,) = witness.regions()
    os.kill(endpoint.pid, signal.SIGKILL)
    _wait_until(lambda: not witness.pids("tritonserver"))

    (status,) = serve.running()
    assert (status.state, status.uptime_s, status.models) == ("dead", 0.0, ())
    assert region.exists()
    stopped = serve.stop("echo")

    assert (stopped.was_alive, stopped.shared_memory_removed) == (False, 1)
    assert (witness.lines(), region.exists(), serve.running()) == ([], False, ())


def test_a_killed_stub_makes_its_server_not_ready_although_triton_says_it_is(spec, witness):
    endpoint = serve.start(spec)
    (stub,) = witness.pids("triton_python_backend_stub")
    os.kill(stub, signal.SIGKILL)
    _wait_until(lambda: not witness.pids("triton_python_backend_stub"))

    (status,) = serve.running()

    assert triton_http.models(endpoint.http_url, ["ensemble", "none"]) == ("ensemble",)
    assert (status.state, status.models) == ("not ready", ())
    assert status.problem == f"a model's Python process died (pid {stub})"
    stopped = serve.stop("echo")
    assert (stopped.was_alive, witness.lines()) == (True, [])


def test_a_name_of_a_dead_server_can_be_used_again(spec, witness):
    first = serve.start(spec)
    (region,) = witness.regions()
    os.kill(first.pid, signal.SIGKILL)
    _wait_until(lambda: not witness.pids("tritonserver"))

    second = serve.start(spec)

    assert [status.endpoint for status in serve.running()] == [second]
    assert witness.pids("tritonserver") == [second.pid]
    assert not region.exists()


def test_a_second_server_of_the_same_name_is_refused(spec, free_ports):
    written = []
    endpoint = serve.start(spec, once_claimed=lambda: written.append("first"))

    with pytest.raises(MissingError) as refused:
        serve.start(
            dataclasses.replace(spec, http_port=1 + free_ports[0]), once_claimed=lambda: written.append("second")
        )
    with pytest.raises(MissingError) as busy:
        serve.start(dataclasses.replace(spec, name="other"))

    assert str(refused.value) == (
        f"A server named 'echo' is already running at {endpoint.http_url} (pid {endpoint.pid})."
    )
    assert str(busy.value) == f"Port {spec.http_port} is taken by the server 'echo' (pid {endpoint.pid})."
    assert busy.value.hint.startswith("Try --http-port ")
    assert busy.value.hint.endswith(", or `trtk stop echo`.")
    assert [status.endpoint for status in serve.running()] == [endpoint]
    assert written == ["first"]  # what goes by the name is still that of the server that has it


def test_a_busy_port_names_its_holder_and_a_port_that_is_free(spec):
    with socket.create_server(("127.0.0.1", spec.grpc_port)), pytest.raises(MissingError) as refused:
        serve.start(spec)

    hint = refused.value.hint
    assert str(refused.value).startswith(f"Port {spec.grpc_port} is taken by pid {os.getpid()} (")
    assert hint.startswith("Try --grpc-port ")
    socket.create_server(("127.0.0.1", int(hint.removeprefix("Try --grpc-port ").removesuffix(".")))).close()
    assert serve.running() == ()


def _import_fails(model):
    (model / "1/model.py").write_text("import nosuchlibrary\n")


def _model_file_is_missing(model):
    (model / "1/model.py").unlink()


def _initialize_fails(model):
    (model / "1/model.py").write_text(
        "class TritonPythonModel:\n    def initialize(self, args):\n        raise ValueError('no weights\\nfor you')\n"
    )


def _stub_dies(model):
    (model / "1/model.py").write_text("import os\nos._exit(3)\n")


def _config_does_not_parse(model):
    (model / "config.pbtxt").write_text('backend: "python"\nmax_batch_size: ${n}\n')


def _version_is_missing(model):
    (model / "1/model.py").unlink()
    (model / "1").rmdir()


@pytest.mark.parametrize(
    ("breaking", "reason"),
    [
        (_import_fails, "ModuleNotFoundError: No module named 'nosuchlibrary'."),
        (_model_file_is_missing, "Python model file not found in '{model}/1/model.py'."),
        (_initialize_fails, "ValueError: no weights."),
        (_stub_dies, "Stub process 'ensemble_0_0' is not healthy."),
        (
            _config_does_not_parse,
            "failed to read text proto from {model}/config.pbtxt: 2:17: Expected integer, got: $.",
        ),
        (
            _version_is_missing,
            "at least one version must be available under the version policy of model 'ensemble'.",
        ),
    ],
    ids=lambda value: getattr(value, "__name__", "").strip("_") or None,
)
def test_a_broken_model_is_named_with_the_reason_and_nothing_stays(spec, witness, breaking, reason):
    model = Path(spec.repository) / "ensemble"
    breaking(model)
    started = time.monotonic()

    with pytest.raises(ServerError) as failed:
        serve.start(spec)

    first, *rest = str(failed.value).splitlines()
    assert first == f"Model 'ensemble' could not be loaded: {reason.format(model=model)}"
    assert rest[0] == f"From its log, {serve.log_path('echo')}:"
    assert len(rest) > 1
    assert failed.value.hint == "`trtk logs echo` shows its log."
    assert time.monotonic() - started < 20
    assert (witness.lines(), serve.running()) == ([], ())


def test_a_model_that_loads_but_cannot_answer_is_not_ready(spec, witness):
    (Path(spec.repository) / "ensemble/1/model.py").write_text(
        "class TritonPythonModel:\n    def execute(self, requests):\n        raise ValueError('broken inside')\n"
    )

    with pytest.raises(ServerError) as failed:
        serve.start(dataclasses.replace(spec, startup_timeout_s=5))

    assert str(failed.value).startswith("Model 'ensemble' ")
    assert (witness.lines(), serve.running()) == ([], ())


def test_a_server_that_is_too_slow_is_stopped_at_the_timeout(spec, witness):
    (Path(spec.repository) / "ensemble/1/model.py").write_text("import time\ntime.sleep(60)\n")

    with pytest.raises(ServerError) as failed:
        serve.start(dataclasses.replace(spec, startup_timeout_s=1.5))

    assert str(failed.value).splitlines()[0] == "The server was not ready after 2 s."
    assert failed.value.hint == "Give it longer with --timeout. `trtk logs echo` shows its log."
    assert (witness.lines(), serve.running()) == ([], ())


def test_a_pid_that_was_used_again_is_not_taken_for_the_server(spec):
    endpoint = serve.start(spec)
    (path,) = Path(os.environ["TRTK_STATE"]).glob("servers/*.json")
    document = json.loads(path.read_text())
    serve.stop("echo")
    document["endpoint"]["pid"] = os.getpid()
    path.write_text(json.dumps(document))

    (status,) = serve.running()
    stopped = serve.stop("echo")

    assert status.endpoint == dataclasses.replace(endpoint, pid=os.getpid())
    assert (status.state, stopped.was_alive, stopped.killed) == ("dead", False, 0)


def test_a_record_of_the_boot_before_is_dead(spec):
    serve.start(spec)
    record = records.read("echo")
    records.write(dataclasses.replace(record, boot_id="another boot"))

    (status,) = serve.running()

    assert (status.state, to_json(status.endpoint)) == ("dead", to_json(record.endpoint))


def _wait_until(is_so, timeout_s=10.0):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)
