"""When a probe is due, and what it concludes, against a server that answers as it is told."""

import dataclasses
import http.server
import json
import threading
import time

import pytest

from toolkit.serve import backend, probing
from toolkit.serve.backend import Inside
from toolkit.serve.records import Record
from toolkit.specs import Endpoint, ServeSpec


class Scripted:
    """Answers metrics and generate as told, and counts what it was asked."""

    answered = 0
    finished = 0
    steps, steps_for_each = 0, 0
    status = 200
    error = "the device is lost"
    takes_s = 0.0
    asked = 0


@pytest.fixture
def scripted():
    script, released = Scripted(), threading.Event()

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            engine = 'model="tensorrt_llm",version="1"'
            text = f'nv_inference_request_success{{model="ensemble",version="1"}} {script.answered}\n'
            text += f'nv_llm_output_token_len_count{{{engine},response_metric_type="x"}} {script.finished}\n'
            text += f'nv_trt_llm_general_metrics{{{engine},general_type="timestamp"}} {time.time()}\n'
            text += f'nv_trt_llm_general_metrics{{{engine},general_type="iteration_counter"}} {script.steps}\n'
            self.reply(200, text)

        def do_POST(self):
            script.asked += 1
            script.steps += script.steps_for_each
            released.wait(script.takes_s)
            script.answered += script.status == 200
            self.reply(script.status, json.dumps({"error": script.error}))

        def reply(self, status, text):
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            """Say nothing about a client that gave up."""

    with Server(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        script.url = f"http://127.0.0.1:{server.server_port}"
        yield script
        released.set()
        server.shutdown()


@pytest.fixture
def prober(scripted, monkeypatch, tmp_path):
    monkeypatch.setattr(probing, "PROBE_TIMEOUT_S", 0.3)
    (tmp_path / "ensemble").mkdir()
    (tmp_path / "ensemble/config.pbtxt").write_text('platform: "ensemble"\n')
    spec = ServeSpec(name="x", repository=str(tmp_path), backend="embedded", probe_every_s=30)
    endpoint = Endpoint(
        name="x",
        http_url=scripted.url,
        grpc_url="",
        metrics_url=f"{scripted.url}/metrics",
        pid=1,
        log_path="",
        started_at="",
        spec=spec,
    )
    return probing.Prober(
        Record(server_id="1", endpoint=endpoint, boot_id="", start_ticks=0, owner_pid=1, owner_start_ticks=0)
    )


def look(prober):
    """Look as if the time for a probe had come, and again when it has ended."""
    prober.probed_s -= 31
    if said := prober.fault():
        return said
    if prober.asking:
        prober.asking.join()
    return prober.fault()


def test_a_server_is_not_asked_before_it_is_time(prober, scripted):
    assert (prober.fault(), scripted.asked) == ("", 0)
    assert (look(prober), scripted.asked) == ("", 1)
    assert (prober.fault(), scripted.asked) == ("", 1)


def test_others_are_looked_after_while_a_probe_waits(prober, scripted, monkeypatch):
    monkeypatch.setattr(probing, "PROBE_TIMEOUT_S", 30)
    scripted.takes_s = 30.0
    prober.probed_s -= 31
    before = time.monotonic()

    assert [prober.fault() for _ in range(3)] == ["", "", ""]
    assert time.monotonic() - before < 5


def test_one_that_answers_others_is_not_asked(prober, scripted):
    look(prober)
    scripted.answered += 5

    assert (look(prober), scripted.asked) == ("", 1)


def test_two_errors_in_a_row_are_a_fault_and_one_is_none(prober, scripted):
    scripted.status = 500
    assert look(prober) == ""
    scripted.status = 200
    assert look(prober) == ""
    scripted.status = 500
    assert look(prober) == ""

    assert look(prober) == "Model 'ensemble' answered a request for one token with 500: the device is lost."


def test_silence_is_a_fault_unless_others_are_answered_meanwhile(prober, scripted):
    scripted.takes_s = 5.0
    assert look(prober) == ""
    scripted.answered += 1
    assert look(prober) == ""
    assert look(prober) == ""

    assert look(prober) == "Model 'ensemble' did not answer a request for one token in 0 s."


def test_requests_that_a_decoupled_model_has_merely_taken_are_no_answers(prober, scripted, tmp_path):
    (tmp_path / "ensemble/config.pbtxt").write_text("model_transaction_policy { decoupled: True }\n")
    scripted.takes_s = 5.0
    scripted.answered += 1
    assert look(prober) == ""
    scripted.answered += 1
    assert look(prober) == "Model 'ensemble' did not answer a request for one token in 0 s."

    scripted.finished += 1
    assert (look(prober), prober.failures) == ("", 0)


def test_an_engine_that_steps_in_the_silence_is_busy_and_one_that_only_errs_is_not(prober, scripted):
    scripted.takes_s, scripted.steps_for_each = 5.0, 1
    for _ in range(3):
        assert (look(prober), prober.failures) == ("", 0)
    scripted.takes_s, scripted.status = 0.0, 500
    assert look(prober) == ""
    assert look(prober) == "Model 'ensemble' answered a request for one token with 500: the device is lost."


def test_a_full_queue_is_a_fault_only_of_an_engine_that_stands_still(prober, scripted):
    scripted.status = 503
    scripted.error = "in ensemble 'ensemble', Exceeds maximum queue size: 64 requests wait already."
    for _ in range(3):
        scripted.steps += 100
        assert (look(prober), prober.failures) == ("", 0)
    assert look(prober) == ""

    assert look(prober).startswith("Model 'ensemble' answered a request for one token with 503: in ensemble")


def test_what_is_wrong_in_a_server_counts_when_it_is_seen_twice(prober, monkeypatch):
    seen = iter(["its container is not there", "", "its container is not there", "its container is not there"])
    boxed = dataclasses.replace(backend.pick("embedded"), look=lambda _: Inside(problem=next(seen)))
    monkeypatch.setattr(backend, "pick", lambda _: boxed)
    monkeypatch.setattr(probing, "LOOK_EVERY_S", -1.0)

    assert [prober.fault() for _ in range(4)] == ["", "", "", "x: its container is not there."]
