from dataclasses import replace

from toolkit.monitoring import EngineFigures, GatewayFigures, GpuFigures, ModelFigures, figures, gateway_figures, parse

EARLIER = """\
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="tensorrt_llm",version="1"} 10
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="tensorrt_llm",reason="OTHER",version="1"} 1
nv_inference_request_failure{model="tensorrt_llm",reason="CANCELED",version="1"} 0
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="tensorrt_llm",version="1"} 1000000
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="tensorrt_llm",version="1"} 5000
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="tensorrt_llm",version="1"} 0
# TYPE nv_llm_output_token_len histogram
nv_llm_output_token_len_count{model="tensorrt_llm"} 10
nv_llm_output_token_len_sum{model="tensorrt_llm"} 1000
"""
LATER = """\
# TYPE nv_inference_request_success counter
nv_inference_request_success{model="tensorrt_llm",version="1"} 18
# TYPE nv_inference_request_failure counter
nv_inference_request_failure{model="tensorrt_llm",reason="OTHER",version="1"} 2
nv_inference_request_failure{model="tensorrt_llm",reason="CANCELED",version="1"} 1
# TYPE nv_inference_request_duration_us counter
nv_inference_request_duration_us{model="tensorrt_llm",version="1"} 5000000
# TYPE nv_inference_queue_duration_us counter
nv_inference_queue_duration_us{model="tensorrt_llm",version="1"} 9000
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="tensorrt_llm",version="1"} 3
# TYPE nv_llm_output_token_len histogram
nv_llm_output_token_len_count{model="tensorrt_llm"} 18
nv_llm_output_token_len_sum{model="tensorrt_llm"} 1800
# TYPE nv_trt_llm_request_metrics gauge
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="active",version="1"} 5
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 2
# TYPE nv_trt_llm_kv_cache_block_metrics gauge
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 30
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="tensorrt_llm",version="1"} 120
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.25
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.9
# TYPE nv_gpu_memory_used_bytes gauge
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 17000000000
"""
NOTHING_HAPPENED = {"queue_ms": None, "duration_ms": None, "first_response_ms": None}


def test_two_scrapes_give_rates_and_means_of_what_happened_between_them():
    made = figures(parse(LATER, taken_at_s=14.0), parse(EARLIER, taken_at_s=10.0))
    assert made.interval_s == 4.0
    assert made.models == (
        ModelFigures(
            model="tensorrt_llm",
            requests_ok=18.0,
            requests_failed={"OTHER": 2.0, "CANCELED": 1.0},
            requests_per_s=2.0,
            failures_per_s=0.5,
            pending=3.0,
            queue_ms=0.5,  # 4 ms over 8 requests
            duration_ms=500.0,
            first_response_ms=None,
        ),
    )
    assert made.engines == (
        EngineFigures(
            model="tensorrt_llm",
            requests_active=5.0,
            requests_scheduled=None,
            requests_context=None,
            requests_waiting=2.0,
            requests_max=None,
            kv_blocks_used=30.0,
            kv_blocks_free=None,
            kv_blocks_max=120.0,
            kv_fraction=0.25,
            kv_tokens_per_block=None,
            output_tokens_per_s=200.0,
            input_tokens_per_s=None,
        ),
    )
    assert made.gpus == (
        GpuFigures(uuid="GPU-1", utilization=0.9, memory_used_bytes=17e9, memory_total_bytes=None, power_w=None),
    )
    assert (made.cpu_utilization, made.memory_used_bytes) == (None, None)


def test_one_scrape_gives_no_rates():
    (model,) = figures(parse(LATER)).models
    assert (model.requests_per_s, model.failures_per_s, model.duration_ms) == (None, None, None)
    assert model.requests_ok == 18.0


def test_a_server_that_was_started_again_counts_from_zero():
    made = figures(parse(EARLIER, taken_at_s=12.0), parse(LATER, taken_at_s=10.0))
    assert made.models[0].requests_per_s == 5.0


def test_without_requests_there_is_no_mean():
    later = figures(parse(LATER, taken_at_s=12.0), parse(LATER, taken_at_s=10.0)).models[0]
    assert later == replace(later, requests_per_s=0.0, failures_per_s=0.0, **NOTHING_HAPPENED)


def test_a_gateway_says_its_requests_by_status():
    text = """\
# TYPE trtk_gateway_requests_total counter
trtk_gateway_requests_total{{endpoint="chat",model="m",outcome="ok",status="200"}} {ok}
trtk_gateway_requests_total{{endpoint="completions",model="m",outcome="ok",status="200"}} 1
trtk_gateway_requests_total{{endpoint="chat",model="none",outcome="refused",status="429"}} 2
# TYPE trtk_gateway_tokens_total counter
trtk_gateway_tokens_total{{model="m",kind="input"}} 5000
trtk_gateway_tokens_total{{model="m",kind="output"}} {tokens}
# TYPE trtk_gateway_time_to_first_token_seconds histogram
trtk_gateway_time_to_first_token_seconds_count{{model="m"}} {ok}
trtk_gateway_time_to_first_token_seconds_sum{{model="m"}} {seconds}
# TYPE trtk_gateway_requests_in_flight gauge
trtk_gateway_requests_in_flight 4
"""
    earlier = parse(text.format(ok=10, tokens=100, seconds=1.0), taken_at_s=0.0)
    later = parse(text.format(ok=20, tokens=400, seconds=3.0), taken_at_s=5.0)
    assert gateway_figures(later, earlier) == GatewayFigures(
        in_flight=4.0,
        waiting=None,
        requests={"200": 21.0, "429": 2.0},
        requests_per_s=2.0,
        output_tokens_per_s=60.0,
        ttft_ms=200.0,
    )
