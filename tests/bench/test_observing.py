"""What the server said while it was loaded: read every second, drawn, and what it was short of named."""

import http.server
import threading
import time

import pytest

from toolkit import bench
from toolkit.bench import observing, plots
from toolkit.bench.report import html
from toolkit.specs import LoadProfile

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
    assert report.document["limited_by"] == ["requests queue in the server"]
    assert 'id="server"' in html(report)


def test_a_server_without_metrics_is_measured_all_the_same(serve):
    served = serve()
    profile = LoadProfile(url=served.http, requests=4, osl=2, metrics_url="http://127.0.0.1:9/metrics")
    document = bench.summarise(bench.run(profile), {}).document
    assert document["requests"]["ok"] == 4
    assert document["server_metrics"]["samples"] == []
    assert any("Nothing answers at http://127.0.0.1:9/metrics" in warning for warning in document["warnings"])


def seen(**figures):
    base = dict.fromkeys(("requests_active", "requests_waiting", "kv_fraction"))
    samples = [{"t_s": float(i), **base, **{k: v for k, v in figures.items() if k in base}} for i in range(8)]
    client = {"cpu_share": figures.get("cpu_share", 0.1)}
    return {"server_metrics": {"samples": samples}, "client": client, "send_lag_ms": {"p99": figures.get("lag", 1.0)}}


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, []),
        ({"kv_fraction": 0.97}, ["the KV cache is full"]),
        ({"kv_fraction": 0.6, "requests_active": 100, "requests_waiting": 3}, []),
        ({"requests_active": 16, "requests_waiting": 4}, ["requests queue in the server"]),
        ({"kv_fraction": 1.0, "requests_active": 4, "requests_waiting": 4},
         ["the KV cache is full", "requests queue in the server"]),
        ({"cpu_share": 0.95}, ["the load tester is busy"]),
        ({"lag": 80.0}, ["the load tester is busy"]),
    ],
)  # fmt: skip
def test_what_was_short_is_named(figures, expected):
    assert observing.limited_by(seen(**figures)) == expected


def test_without_two_samples_nothing_is_drawn():
    assert plots._server([]) == []
    assert plots._server([dict.fromkeys(("t_s", *(panel[0] for panel in plots.SERVER_PANELS)))] * 3) == []
