"""What the server said while it was loaded: read every second, drawn, and what it was short of named."""

import dataclasses
import http.server
import threading
import time

import pytest

from toolkit import bench
from toolkit.bench import plots
from toolkit.bench.observing import Observer
from toolkit.bench.report import html
from toolkit.monitoring.scraping import parse
from toolkit.specs import LoadProfile
from toolkit.specs.machine import GpuUse

METRICS = """\
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="active",version="1"}} {active}
nv_trt_llm_request_metrics{{model="tensorrt_llm",request_type="waiting",version="1"}} {waiting}
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"}} {fraction}
nv_trt_llm_kv_cache_block_metrics{{kv_cache_block_type="used",model="tensorrt_llm",version="1"}} {used}
"""


@pytest.fixture
def exporter():
    """Serve metrics that grow with every look."""
    looks = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            looks.append(time.monotonic())
            number = len(looks)
            raw = METRICS.format(active=number, waiting=2 * number, fraction=number / 100, used=number * 5).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_run_keeps_what_the_server_said_and_the_page_draws_it(serve, exporter):
    served = serve(ttft_s=0.02, gap_s=0.01)
    profile = LoadProfile(url=served.http, requests=40, concurrency=2, osl=8, metrics_url=exporter)
    report = bench.summarise(bench.run(profile), {})
    seen = report.document["server_metrics"]

    assert len(seen["samples"]) >= 2
    assert [one["requests_active"] for one in seen["samples"]] == list(range(1, len(seen["samples"]) + 1))
    assert seen["samples"][1]["kv_blocks_used"] == 10
    assert seen["samples"][1]["gpu_power_w"] is None
    assert seen["peak"]["requests_waiting"] == 2 * len(seen["samples"])
    assert "requests queue in the server" in report.document["limited_by"]
    assert 'id="server"' in html(report)


def test_a_server_without_metrics_is_measured_all_the_same(serve):
    served = serve()
    profile = LoadProfile(url=served.http, requests=4, osl=2, metrics_url="http://127.0.0.1:9/metrics")
    document = bench.summarise(bench.run(profile), {}).document
    assert document["requests"]["ok"] == 4
    assert document["server_metrics"]["samples"] == []
    assert any("Nothing answers at http://127.0.0.1:9/metrics" in warning for warning in document["warnings"])


def test_without_two_samples_nothing_is_drawn():
    assert plots._server([]) == []
    assert plots._server([dict.fromkeys(("t_s", *(panel[0] for panel in plots.SERVER_PANELS)))] * 3) == []


def watched(texts, *, gpus=None, url="x"):
    """What an observer keeps of a server that says one text after another, each second."""
    looks = iter(enumerate(texts))

    def read(_):
        second, text = next(looks)
        return parse(text, taken_at_s=float(second))

    observer = Observer(url, read=read, read_gpus=gpus, every_s=3600)
    observer.start()
    return observer.stop()


def tokens(count):
    return f"nv_llm_output_token_len_count {count}\nnv_llm_output_token_len_sum {8 * count}\n"


def card(uuid, *, watts, joules, memory=2 << 30):
    return GpuUse(
        uuid=uuid, title="A4500", utilization=0.9, memory_used_bytes=float(memory), memory_total_bytes=2e10,
        power_w=watts, energy_j=joules,
    )  # fmt: skip


def test_what_the_engine_counted_meanwhile_is_kept():
    found = watched([tokens(100), tokens(140)])
    assert found["counts"] == {"requests": 40.0, "input_tokens": None, "output_tokens": 320.0}
    assert watched(["", ""])["counts"] == {"requests": None, "input_tokens": None, "output_tokens": None}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('nv_gpu_power_usage{gpu_uuid="GPU-b"} 1\n', ["GPU-b"]),  # the server says which are its own
        ("nv_cpu_utilization 0.5\n", []),  # it has metrics and none of a GPU: it computes on the CPU
    ],
)
def test_only_the_gpus_of_the_server_count(text, expected):
    cards = [card("GPU-a", watts=100.0, joules=1.0), card("GPU-b", watts=70.0, joules=1.0)]
    found = watched([text, text], gpus=lambda: cards)
    assert [gpu["uuid"] for gpu in found["gpus"]] == expected
    assert [one["gpu_power_w"] for one in found["samples"]] == [70.0 if expected else None] * 2


def test_of_a_server_without_metrics_those_count_in_whose_memory_something_lies():
    readings = iter([(100.0, 0), (160.0, 3 << 30)])

    def read():
        joules, memory = next(readings)
        return [card("GPU-a", watts=60.0, joules=joules), card("GPU-b", watts=20.0, joules=5.0, memory=memory)]

    found = watched([], gpus=read, url="")
    assert [gpu["uuid"] for gpu in found["gpus"]] == ["GPU-a"]
    assert (found["energy"]["joules"], found["energy"]["source"]) == (60.0, "the GPUs' energy counters")


@pytest.mark.parametrize(
    ("more", "said"),
    [(0, None), (4, "The server counted 48 output tokens, the client 32: who else asked it, or whose count is wrong?")],
)
def test_tokens_that_the_client_did_not_see_are_said(serve, more, said):
    served = serve(counted_more=more)
    profile = LoadProfile(url=served.http, requests=4, osl=8, metrics_url=f"{served.http}/metrics")
    warnings = bench.summarise(bench.run(profile), {}).document["warnings"]
    assert [one for one in warnings if "output tokens, the client" in one] == ([said] if said else [])


def test_requests_that_an_openai_client_did_not_send_are_said(serve):
    served = serve()
    profile = LoadProfile(
        url=served.url("openai+http"), model="", requests=4, osl=8, metrics_url=f"{served.http}/metrics"
    )
    run = bench.run(profile)
    assert run.observed["counts"]["requests"] == 4
    others = dataclasses.replace(run, observed={**run.observed, "counts": {"requests": 9.0, "output_tokens": None}})
    said = "The server counted 9 requests to mock, the client 4: who else asked it?"
    assert [said in bench.summarise(one, {}).document["warnings"] for one in (run, others)] == [False, True]
