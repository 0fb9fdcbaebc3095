import http.server
import socket
import threading

import pytest

from toolkit.errors import MissingError, ServerError
from toolkit.monitoring import Sample, parse, scrape

TEXT = """\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="ensemble",version="1"} 7
# HELP trtk_gateway_requests_total Requests by outcome.
# TYPE trtk_gateway_requests_total counter
trtk_gateway_requests_total{status="200"} 3
# HELP nv_llm_output_token_len Tokens of answers
# TYPE nv_llm_output_token_len histogram
nv_llm_output_token_len_count{model="tensorrt_llm"} 2
nv_llm_output_token_len_sum{model="tensorrt_llm"} 31
nv_llm_output_token_len_bucket{model="tensorrt_llm",le="10"} 1
nv_llm_output_token_len_bucket{model="tensorrt_llm",le="+Inf"} 2
# HELP nv_cpu_utilization CPU utilization rate [0.0 - 1.0]
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.25
"""


@pytest.fixture
def exporter():
    """Serves one text with one status; yields a function that sets them and returns the URL."""
    said = {"status": 200, "text": "", "key": ""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            is_let_in = self.headers["Authorization"] == f"Bearer {said['key']}" if said["key"] else True
            self.send_response(said["status"] if is_let_in else 401)
            self.end_headers()
            self.wfile.write(said["text"].encode())

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def say(text, status=200, key=""):
        said.update(text=text, status=status, key=key)
        return f"http://127.0.0.1:{server.server_address[1]}/metrics"

    yield say
    server.shutdown()
    thread.join()
    server.server_close()


def test_series_keep_the_names_that_were_exposed(exporter):
    """The parser calls every counter `_total`; an expression with that name would find nothing in Prometheus."""
    read = scrape(exporter(TEXT))
    exposed = [line.partition("{")[0].partition(" ")[0] for line in TEXT.splitlines() if not line.startswith("#")]
    assert [one.name for one in read.samples] == exposed
    assert dict(read.kinds) == {
        "nv_inference_request_success": "counter",
        "trtk_gateway_requests_total": "counter",
        "nv_llm_output_token_len": "histogram",
        "nv_cpu_utilization": "gauge",
    }
    assert read.matching("nv_inference_request_success", model="ensemble") == (
        Sample(name="nv_inference_request_success", labels={"model": "ensemble", "version": "1"}, value=7.0),
    )


def test_what_is_absent_is_not_zero():
    read = parse(TEXT)
    assert read.total("nv_cpu_utilization") == 0.25
    assert read.total("nv_gpu_utilization") is None
    assert read.total("nv_inference_request_success", model="tensorrt_llm") is None


def test_a_wrong_port_or_page_is_told_in_a_sentence(exporter):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/metrics"
        with pytest.raises(ServerError, match=r"Nothing answers at http://127\.0\.0\.1:\d+/metrics: .*refused\.$"):
            scrape(nobody)
    with pytest.raises(ServerError, match=r"answers with are no Prometheus metrics\.$"):
        scrape(exporter('{"name": "triton"}'))
    with pytest.raises(ServerError, match=r"/metrics answers with 404\.$"):
        scrape(exporter("not here", status=404))
    for no_url in ("nope", "http://[", "http://127.0.0.1:99999/metrics"):
        with pytest.raises(ServerError, match="^Nothing answers at "):
            scrape(no_url)


def test_an_exporter_that_wants_a_key_gets_the_one_of_the_environment(exporter, monkeypatch):
    url = exporter(TEXT, key="trtk-1")
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(MissingError, match=r"/metrics lets nobody in without a key\.$"):
        scrape(url)
    monkeypatch.setenv("OPENAI_API_KEY", "trtk-1")
    assert scrape(url).needs_key
    assert not scrape(exporter(TEXT)).needs_key
