"""Whatever a server does, a run ends in time, keeps what was measured, counts errors by kind and exits as it should."""

import contextlib
import json
import os
import signal
import socket
import threading
import time

import pytest
from click.testing import CliRunner

from toolkit import bench
from toolkit.cli import main
from toolkit.errors import ServerError, UnknownName
from toolkit.specs import LoadProfile

SCHEMES = ("grpc", "http", "openai+http")
REQUESTS = 24


def run(served, scheme, **changes):
    profile = {"url": served.url(scheme), "model": "" if scheme == "openai+http" else "ensemble"}
    profile |= {"concurrency": 4, "requests": REQUESTS, "osl": 8, "isl": 8, "timeout_s": 20}
    return bench.run(LoadProfile(**(profile | changes)))


def errors(found):
    return bench.summarise(found, {}).document["errors"]


@pytest.mark.parametrize(("scheme", "processes"), [("grpc", 1), ("http", 1), ("openai+http", 1), ("grpc", 2)])
def test_a_server_that_dies_mid_run(serve, scheme, processes):
    # OpenAI's probes before the clock starts are requests too, of each process.
    started = time.monotonic()
    found = run(serve(die_at_request=24, gap_s=0.005), scheme, requests=100_000, processes=processes)
    assert time.monotonic() - started < 60
    assert found.stop_reason.startswith("The server at ")
    assert sum(record.outcome == "ok" for record in found.records) >= 6
    assert set(errors(found)) <= {"stream_broken", "connection_refused"}
    assert errors(found)["connection_refused"] >= 1


@pytest.mark.parametrize("scheme", ["http", "openai+http"])
def test_half_the_connections_reset(serve, scheme):
    found = run(serve(reset_every=2), scheme, concurrency=1)
    assert [record.error for record in found.records] == [None, "stream_broken"] * (REQUESTS // 2) or [
        record.error for record in found.records
    ] == ["stream_broken", None] * (REQUESTS // 2)
    assert found.stop_reason is None


class Cutter:
    """A way to a server that cuts its first connections in the middle of their answers."""

    def __init__(self, port, *, cuts, after_s):
        self.target, self.cuts, self.after_s = port, cuts, after_s
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection(("127.0.0.1", self.target))
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self.pass_on, args=pair, daemon=True).start()
                if self.cuts:
                    self.cuts -= 1
                    threading.Timer(self.after_s, self.cut, (near, far)).start()

    def pass_on(self, source, target):
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                target.sendall(piece)

    def cut(self, *ends):
        for end in ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_a_grpc_connection_that_is_cut_fails_what_was_on_it_and_is_made_again(serve):
    served = serve(ttft_s=0.05, gap_s=0.02)
    way = Cutter(int(served.grpc.rsplit(":", 1)[1]), cuts=1, after_s=1.0)
    served.grpc = f"grpc://127.0.0.1:{way.port}"
    found = run(served, "grpc", requests=60)
    way.listener.close()
    outcomes = [(record.outcome, record.error) for record in found.records]
    assert found.stop_reason is None
    assert set(outcomes) == {("ok", None), ("failed", "stream_broken")}
    assert 1 <= outcomes.count(("failed", "stream_broken")) <= 8
    assert len(outcomes) == 60


@pytest.mark.parametrize("scheme", ["http", "openai+http"])
def test_malformed_events(serve, scheme):
    found = run(serve(is_malformed=True), scheme, requests=4)
    assert errors(found) == {"bad_response": 4}
    assert {record.message for record in found.records} == {"An event is not JSON: b'not json'."}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_final_response_that_never_comes(serve, scheme):
    found = run(serve(is_never_final=True), scheme, requests=4, timeout_s=0.5)
    assert errors(found) == {"timeout": 4}
    assert {record.output_tokens for record in found.records} == {8}  # what came is kept
    assert found.duration_s < 10


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_error_after_a_200(serve, scheme):
    found = run(serve(fail_every=3), scheme)
    assert errors(found) == {"server_error": REQUESTS // 3}
    assert {record.message for record in found.records if record.error} == {"CUDA out of memory"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_is_not_there(scheme):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{unused.getsockname()[1]}/v1"
        with pytest.raises(ServerError, match=r"No (Triton|OpenAI-compatible) server answers at ") as caught:
            bench.run(LoadProfile(url=url, requests=1, concurrency=2))
    assert caught.value.exit_code == 6


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_model_that_the_server_has_not(serve, scheme):
    with pytest.raises(UnknownName, match="There is no model on the server named 'llama'") as caught:
        run(serve(), scheme, model="llama")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("script", "options", "code", "kinds", "sentence"),
    [
        ({"die_at_request": 9, "gap_s": 0.005}, ["--requests", "5000"], 6, None, "stopped answering after"),
        ({"fail_every": 4}, [], 0, {"server_error": 4}, "4 of 16 requests failed, the first with: CUDA out of memory"),
        (
            {"fail_every": 1},
            [],
            6,
            {"server_error": 16},
            "16 of 16 requests failed, the first with: CUDA out of memory",
        ),
        ({"is_never_final": True}, ["--timeout", "0.3"], 6, {"timeout": 16}, "No whole answer within 0.3 s."),
    ],
)
def test_the_exit_code_the_sentence_and_the_report(serve, tmp_path, script, options, code, kinds, sentence):
    arguments = ["--url", serve(**script).grpc, "--concurrency", "4", "--requests", "16", "--warmup", "0", "--osl", "8"]
    done = CliRunner().invoke(main, ["bench", *arguments, *options, "-o", f"{tmp_path}/r"], catch_exceptions=False)
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (done.exit_code, sentence in done.stderr, report["valid"]) == (code, True, False)
    assert kinds is None or report["errors"] == kinds
    assert report["requests"]["sent"] == len((tmp_path / "r" / "requests.jsonl").read_text().splitlines())


@pytest.mark.parametrize("processes", ["1", "2"])
def test_ctrl_c_is_130_with_a_partial_report_that_says_so(serve, tmp_path, processes):
    served = serve(ttft_s=0.05, gap_s=0.01)

    def interrupt():
        while len(served.truth()) < 16:  # of which half may not have reached the client
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    arguments = ["--url", served.grpc, "--duration", "60", "--warmup", "0", "--processes", processes]
    done = CliRunner().invoke(main, ["bench", *arguments, "-o", f"{tmp_path}/r"], catch_exceptions=False)
    report = json.loads((tmp_path / "r" / "report.json").read_text())
    assert (done.exit_code, report["interrupted"], report["valid"]) == (130, True, False)
    assert report["requests"]["ok"] >= 8
    assert report["requests"]["failed"] == 0
    assert "Interrupted: the report has what was measured until then." in done.stderr
