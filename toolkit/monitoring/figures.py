"""What a server does, read from its metrics: a pure function of two scrapes. What is not exported is None, not zero."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolkit.monitoring.scraping import Scrape

REQUESTS, BLOCKS = "nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics"
SUCCESS, FAILURE = "nv_inference_request_success", "nv_inference_request_failure"
FIRST_RESPONSE = "nv_inference_first_response_histogram_ms"
GATEWAY_REQUESTS, GATEWAY_TTFT = "trtk_gateway_requests_total", "trtk_gateway_time_to_first_token_seconds"
INPUT_TOKENS, OUTPUT_TOKENS = "nv_llm_input_token_len_sum", "nv_llm_output_token_len_sum"


@dataclass(frozen=True, kw_only=True)
class EngineFigures:
    """One engine: its requests, its KV cache, its tokens."""

    model: str
    requests_active: float | None
    requests_scheduled: float | None
    requests_context: float | None
    requests_waiting: float | None
    requests_max: float | None
    kv_blocks_used: float | None
    kv_blocks_free: float | None
    kv_blocks_max: float | None
    kv_fraction: float | None
    kv_tokens_per_block: float | None
    output_tokens_per_s: float | None
    input_tokens_per_s: float | None


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """One Triton model; rates and means are over the time between the two scrapes."""

    model: str
    requests_ok: float | None  # since the server started
    requests_failed: Mapping[str, float]  # by reason, since the server started
    requests_per_s: float | None
    failures_per_s: float | None
    pending: float | None
    queue_ms: float | None
    duration_ms: float | None
    first_response_ms: float | None


@dataclass(frozen=True, kw_only=True)
class GpuFigures:
    """One GPU."""

    uuid: str
    utilization: float | None  # 0 to 1
    memory_used_bytes: float | None
    memory_total_bytes: float | None
    power_w: float | None


@dataclass(frozen=True, kw_only=True)
class GatewayFigures:
    """The OpenAI endpoint in front of a server."""

    in_flight: float | None
    waiting: float | None
    requests: Mapping[str, float]  # by status, since it started
    requests_per_s: float | None
    output_tokens_per_s: float | None
    ttft_ms: float | None  # mean between the two scrapes


@dataclass(frozen=True, kw_only=True)
class ServerFigures:
    """What one server's metrics say."""

    interval_s: float | None  # between the two scrapes; None: one scrape, no rates
    engines: tuple[EngineFigures, ...]
    models: tuple[ModelFigures, ...]
    cpu_utilization: float | None  # 0 to 1, of the machine
    memory_used_bytes: float | None  # of the machine
    memory_total_bytes: float | None
    gpus: tuple[GpuFigures, ...]


def figures(now: Scrape, before: Scrape | None = None) -> ServerFigures:
    """Return what the metrics say, with rates since BEFORE."""
    interval_s = now.taken_at_s - before.taken_at_s if before else None
    gpus = sorted({one.labels["gpu_uuid"] for one in now.samples if "gpu_uuid" in one.labels})
    return ServerFigures(
        interval_s=interval_s,
        engines=tuple(_engine(now, before, model) for model in now.models(REQUESTS)),
        models=tuple(_model(now, before, model) for model in now.models(SUCCESS)),
        cpu_utilization=now.total("nv_cpu_utilization"),
        memory_used_bytes=now.total("nv_cpu_memory_used_bytes"),
        memory_total_bytes=now.total("nv_cpu_memory_total_bytes"),
        gpus=tuple(_gpu(now, uuid) for uuid in gpus),
    )


def gateway_figures(now: Scrape, before: Scrape | None = None) -> GatewayFigures:
    """Return what a gateway's metrics say, with rates since BEFORE."""
    requests: dict[str, float] = {}
    for one in now.matching(GATEWAY_REQUESTS):
        status = one.labels.get("status", "")
        requests[status] = requests.get(status, 0.0) + one.value
    seconds = _mean(added(now, before, f"{GATEWAY_TTFT}_sum"), added(now, before, f"{GATEWAY_TTFT}_count"))
    return GatewayFigures(
        in_flight=now.total("trtk_gateway_requests_in_flight"),
        waiting=now.total("trtk_gateway_requests_waiting"),
        requests=requests,
        requests_per_s=_rate(now, before, GATEWAY_REQUESTS),
        output_tokens_per_s=_rate(now, before, "trtk_gateway_tokens_total", kind="output"),
        ttft_ms=None if seconds is None else 1000 * seconds,
    )


def added(now: Scrape, before: Scrape | None, name: str, **labels: str) -> float | None:
    """Return by how much a counter grew; one that fell was reset, and has counted from zero since."""
    later = now.total(name, **labels)
    earlier = before.total(name, **labels) if before else None
    if later is None or before is None:
        return None
    if earlier is None or earlier > later:
        return later
    return later - earlier


def _rate(now: Scrape, before: Scrape | None, name: str, **labels: str) -> float | None:
    growth = added(now, before, name, **labels)
    return None if growth is None or before is None else growth / max(now.taken_at_s - before.taken_at_s, 1e-9)


def _mean(part: float | None, count: float | None) -> float | None:
    """Return a mean over what happened between the scrapes; None where nothing did."""
    return part / count if part is not None and count else None


def _engine(now: Scrape, before: Scrape | None, model: str) -> EngineFigures:
    def requests(kind: str) -> float | None:
        return now.total(REQUESTS, model=model, request_type=kind)

    def blocks(kind: str) -> float | None:
        return now.total(BLOCKS, model=model, kv_cache_block_type=kind)

    return EngineFigures(
        model=model,
        requests_active=requests("active"),
        requests_scheduled=requests("scheduled"),
        requests_context=requests("context"),
        requests_waiting=requests("waiting"),
        requests_max=requests("max"),
        kv_blocks_used=blocks("used"),
        kv_blocks_free=blocks("free"),
        kv_blocks_max=blocks("max"),
        kv_fraction=blocks("fraction"),
        kv_tokens_per_block=blocks("tokens_per"),
        output_tokens_per_s=_rate(now, before, OUTPUT_TOKENS, model=model),
        input_tokens_per_s=_rate(now, before, INPUT_TOKENS, model=model),
    )


def _model(now: Scrape, before: Scrape | None, model: str) -> ModelFigures:
    done = added(now, before, SUCCESS, model=model)

    def mean_ms(name: str) -> float | None:
        microseconds = added(now, before, name, model=model)
        return _mean(None if microseconds is None else microseconds / 1000, done)

    return ModelFigures(
        model=model,
        requests_ok=now.total(SUCCESS, model=model),
        requests_failed={one.labels.get("reason", ""): one.value for one in now.matching(FAILURE, model=model)},
        requests_per_s=_rate(now, before, SUCCESS, model=model),
        failures_per_s=_rate(now, before, FAILURE, model=model),
        pending=now.total("nv_inference_pending_request_count", model=model),
        queue_ms=mean_ms("nv_inference_queue_duration_us"),
        duration_ms=mean_ms("nv_inference_request_duration_us"),
        first_response_ms=_mean(
            added(now, before, f"{FIRST_RESPONSE}_sum", model=model),
            added(now, before, f"{FIRST_RESPONSE}_count", model=model),
        ),
    )


def _gpu(now: Scrape, uuid: str) -> GpuFigures:
    return GpuFigures(
        uuid=uuid,
        utilization=now.total("nv_gpu_utilization", gpu_uuid=uuid),
        memory_used_bytes=now.total("nv_gpu_memory_used_bytes", gpu_uuid=uuid),
        memory_total_bytes=now.total("nv_gpu_memory_total_bytes", gpu_uuid=uuid),
        power_w=now.total("nv_gpu_power_usage", gpu_uuid=uuid),
    )
