"""probe.py as kubelet runs it: what answers others is alive, what answers nobody is not, however ready Triton is."""

import importlib.util
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from toolkit.templating import directory

PROBE = directory() / "deploy/kubernetes/probe.py"
COUNTER = "# TYPE nv_inference_request_success counter\n"


class Triton(ThreadingHTTPServer):
    """What a probe sees of a server: readiness, a counter, and an engine that answers or hangs."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.is_ready, self.status, self.answered, self.bodies = True, 200, 0, []
        self.is_hanging, self.grows, self.steps = threading.Event(), 0, 0
        self.released = threading.Event()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/v2/health/ready":
            return self.say(200 if self.server.is_ready else 400, "")
        self.server.answered += self.server.grows
        other = 'nv_inference_request_success{model="tensorrt_llm",version="1"} 999\n'
        own = f'nv_inference_request_success{{model="ensemble",version="1"}} {self.server.answered}\n'
        general = f'nv_trt_llm_general_metrics{{general_type="iteration_counter",model="x"}} {self.server.steps}\n'
        return self.say(200, COUNTER + other + own + general)

    def do_POST(self):
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if self.server.is_hanging.is_set():
            self.server.released.wait(20)
        self.server.answered += self.server.status == 200
        self.say(self.server.status, "{}")

    def say(self, status, text):
        try:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())
        except OSError:
            pass  # the probe has given up

    def log_message(self, *_):
        pass


@pytest.fixture
def triton():
    server = Triton()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def probe(triton, tmp_path):
    spec = importlib.util.spec_from_file_location("probe", PROBE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    port = str(triton.server_address[1])
    state = str(tmp_path / "state")
    return lambda: module.main(["--http", port, "--metrics", port, "--timeout", "0.5", "--state", state])


def test_an_idle_server_is_asked_for_one_token(probe, triton):
    assert [probe(), probe()] == [0, 0]
    assert triton.bodies == [{"text_input": "Hi", "max_tokens": 1, "stream": False}] * 2


def test_a_server_that_answers_others_is_not_asked(probe, triton):
    assert probe() == 0
    triton.grows = 5
    triton.is_hanging.set()
    assert [probe(), probe()] == [0, 0]
    assert len(triton.bodies) == 1


def test_an_engine_that_hangs_is_seen_though_triton_is_ready(probe, triton, capsys):
    assert probe() == 0
    triton.is_hanging.set()
    assert [probe(), probe()] == [1, 1]
    assert "The engine made no token in 0.5 s" in capsys.readouterr().out
    triton.is_hanging.clear()
    assert probe() == 0


def test_a_busy_server_that_keeps_the_probe_waiting_answers_others(probe, triton):
    assert probe() == 0
    triton.is_hanging.set()
    threading.Timer(0.2, setattr, (triton, "answered", 40)).start()
    assert probe() == 0


def test_an_engine_whose_long_answers_are_not_done_yet_makes_steps(probe, triton):
    """Full of long answers it answers nobody for a minute, and turns the probe away: it must not be taken out then."""
    assert probe() == 0
    triton.status, triton.steps = 503, 700
    assert probe() == 0
    assert len(triton.bodies) == 1
    assert probe() == 1


def test_errors_and_silence_are_no_answers(probe, triton):
    triton.status = 500
    assert [probe(), probe()] == [1, 1]
    triton.status = 200
    assert probe() == 0
    triton.is_ready = False
    assert probe() == 1
    triton.is_ready = True
    assert probe() == 0


def test_a_full_queue_at_the_first_look_is_no_reason_to_end_a_server_that_works(probe, triton):
    """It turned the probe away each time, with nothing remembered that the next look could be held against."""
    triton.status = 503
    assert probe() == 1
    triton.steps = 700
    assert probe() == 0
    triton.steps = 900
    assert probe() == 0
    assert len(triton.bodies) == 1


def test_what_a_server_before_this_one_had_counted_is_forgotten(probe, triton, tmp_path):
    (tmp_path / "state").write_text("1000.0")
    triton.status, triton.steps = 503, 5
    assert probe() == 1
    triton.steps = 50
    assert probe() == 0


@pytest.mark.parametrize("left", ["", "1e", "nan"])
def test_a_memory_that_was_cut_off_is_none(probe, triton, tmp_path, left):
    (tmp_path / "state").write_text(left)
    assert probe() == 0
    assert len(triton.bodies) == 1


def test_a_disk_without_room_ends_no_server(probe, triton, tmp_path):
    (tmp_path / "state").mkdir()
    assert [probe(), probe()] == [0, 0]
    assert len(triton.bodies) == 2
