"""Looking at exporters whose numbers are known."""

import http.server
import json
import os
import pty
import select
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from click.testing import CliRunner

from toolkit.cli import main

TRTK = [sys.executable, "-c", "from toolkit.cli import main; main()"]
TEXT = """\
# TYPE nv_inference_request_success counter
nv_inference_request_success{{model="ensemble[x]",version="1"}} {requests}
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{{model="ensemble[x]",reason="REJECTED",version="1"}} 2
nv_inference_request_failure{{model="ensemble[x]",reason="OTHER",version="1"}} 0
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="active",version="1"}} 16
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="max",version="1"}} 64
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="used",model="tensorrt_llm",version="1"}} 1103
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="max",model="tensorrt_llm",version="1"}} 2206
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"}} 0.5
"""


@pytest.fixture
def url():
    """The metrics' URL of an exporter that counts 10 more requests each time it is read."""
    read = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            read.append(None)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TEXT.format(requests=10 * len(read)).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/metrics"
    server.shutdown()
    thread.join()
    server.server_close()


def trtk(*arguments):
    done = CliRunner().invoke(main, ["top", *arguments], catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


def test_one_look_shows_what_is_there_and_dashes_for_what_is_not(url):
    code, out, _ = trtk("--once", "--interval", "0.2", "--url", url)
    lines = [line.rstrip() for line in out.splitlines()]
    assert code == 0
    assert lines[:5] == [
        url,
        "  requests  16 active of 64  - scheduled  - waiting",
        "  KV cache  ████████████░░░░░░░░░░░░ 50 %  1,103 of 2,206 blocks",
        "  tokens    - out/s  - in/s",
        "  machine   CPU -  memory - of - GiB",
    ]
    assert lines[5].split() == ["model", "req/s", "ok", "failed", "pending", "queue", "ms", "mean", "ms"]
    model, rate, ok, failed, *rest = lines[6].split()
    assert (model, float(rate) > 0, ok, failed, rest) == ("ensemble[x]", True, "20", "2", ["-", "-", "-"])
    assert lines[7].split() == ["2", "rejected"]
    assert max(map(len, lines)) <= 80


def test_several_exporters_of_which_one_is_away(url):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{closed.getsockname()[1]}/metrics"
        code, out, _ = trtk("--json", "--interval", "0.2", "--url", url, "--url", away)
    first, second = json.loads(out)["servers"]
    assert (code, first["name"], first["state"], second["state"]) == (0, url, "answers", "not reached")
    assert first["figures"]["models"][0]["requests_failed"] == {"REJECTED": 2.0, "OTHER": 0.0}
    assert (second["figures"], "Nothing answers" in second["why"]) == (None, True)


@pytest.mark.parametrize("ending", ["q", "Ctrl-C"])
def test_the_live_view_redraws_until_q_or_ctrl_c_and_leaves_the_terminal_as_it_was(url, ending):
    leader, follower = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "LINES": "24"}
    process = subprocess.Popen(
        [*TRTK, "top", "--url", url, "--interval", "0.2"],
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env=environment,
        start_new_session=True,
    )
    os.close(follower)
    seen, deadline = b"", time.monotonic() + 60
    while seen.count(b"q ends") < 3 and time.monotonic() < deadline:
        if select.select([leader], [], [], 1)[0]:
            seen += os.read(leader, 65536)
    assert seen.count(b"1,103 of 2,206 blocks") >= 3
    if ending == "q":
        os.write(leader, b"xq")
    else:
        process.send_signal(signal.SIGINT)
    while select.select([leader], [], [], 20)[0]:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        seen += piece
    os.close(leader)
    assert process.wait(20) == 0
    assert b"Traceback" not in seen
    assert seen.rstrip().endswith((b"\x1b[?1049l", b"\x1b[?25h"))  # the other screen is left, the cursor is back


def test_a_name_where_nothing_runs_is_answered_in_whole_sentences(monkeypatch, tmp_path):
    monkeypatch.setenv("TRTK_STATE", str(tmp_path))
    code, out, err = trtk("--once", "nope")
    assert (code, out) == (2, "")
    assert err.splitlines()[1] == "Hint: There is none. `trtk status` lists them all."
