"""What each number of report.json means, and its unit; printed with the numbers."""

from __future__ import annotations

TTFT = "From the moment the request was due to be sent to the first response with text in it, per request."
ITL = (
    "Mean gap between output tokens, per request: (last text - first text) / (output tokens - tokens in the first "
    "text). Several tokens in one response therefore do not look like one slow token."
)
TPOT = (
    "Time per output token after the first text, per request: (end of the response - first text) / (output tokens - "
    "tokens in the first text). Time to first token is not in it."
)
E2E = "From the moment the request was due to be sent to the end of its response, per request."
LAG = (
    "From the moment the request was due to be sent to its hand-over to the network. In a closed loop it is due when "
    "the previous request of its slot ended."
)

#: name → (unit, meaning)
DEFINITIONS = {
    "request_throughput_rps": ("requests/s", "Requests that succeeded, over the duration of the run."),
    "output_token_throughput_tps": (
        "tokens/s",
        "Output tokens of the requests that succeeded, over the duration of the run, ramp and drain included.",
    ),
    "steady_output_token_throughput_tps": (
        "tokens/s",
        "Output tokens from the moment every slot was in use to the last send; each request's tokens count as spread "
        "evenly between its first and its last text. Null where the run is too short for it.",
    ),
    "total_token_throughput_tps": (
        "tokens/s",
        "Input and output tokens of the requests that succeeded, over the duration.",
    ),
    "ttft_ms": ("ms", TTFT),
    "itl_ms": ("ms", ITL),
    "tpot_ms": ("ms", TPOT),
    "e2e_latency_ms": ("ms", E2E),
    "send_lag_ms": ("ms", LAG),
    "latency_with_failures": (
        "ms",
        "The same percentiles with every failed request as an infinite latency; null stands for infinite.",
    ),
    "turns": (
        "ms",
        "Of conversations, for each turn: how many, the mean of their input tokens with all that was said before, TTFT "
        "and ITL. A later turn is due when the answer before has ended and its user has thought; empty without.",
    ),
    "requests": ("requests", "Sent, and of those: ok, failed, cancelled. Warm-up requests are not in it."),
    "errors": ("requests", "Failed requests by kind."),
    "goodput_rps": ("requests/s", "Requests that met every objective, over the duration. Null without objectives."),
    "slo": (
        "requests",
        "For each objective the share of requests at or under the target; failed ones count as over it.",
    ),
    "cost": (
        "currency",
        "The hourly price over the measured rates. per_million_output_tokens lets the output pay for all; "
        "input_apart_per_million and output_apart_per_million share the price by time: input_time_share is the time "
        "that the inputs of the run take one at a time, measured before it, over its duration. at_utilization is the "
        "same for a server that is so busy for only that share of the time that is paid for.",
    ),
    "energy": (
        "J",
        "What the server's GPUs took during the run, by their energy counters or from samples of their power. Null "
        "where nothing says power.",
    ),
    "backlog_growth_rps": (
        "requests/s",
        "By how much more requests arrived than were answered, in an open loop of one rate: the slope of a line "
        "through the requests in flight. Null where it does not differ from chance: the server keeps up.",
    ),
    "input_tokens": ("tokens", "Prompt tokens of the requests that succeeded."),
    "output_tokens": (
        "tokens",
        "Generated tokens of the requests that succeeded; token_count_source says who counted.",
    ),
    "duration_s": ("s", "From the first send to the end of the last response."),
    "mean_in_flight": ("requests", "Requests in flight, averaged over the duration, from the client's own counter."),
    "client": ("s, share", "CPU time of the load tester, and the share of a core that each of its processes used."),
    "server": ("s, requests", "What the server's own statistics counted during the run, by model."),
    "server_metrics": (
        "",
        "The server's own metrics, read before, every second of, and after the run: requests, KV cache, tokens, GPU; "
        "counts is what its engine counted meanwhile. Null: not exported.",
    ),
    "limited_by": ("", "What more than half of these samples, or the client's own figures, show to be short."),
    "valid": ("", "False when a warning says why the numbers should not be trusted or compared."),
}


def document() -> dict[str, dict[str, str]]:
    """Return the definitions as they stand in report.json."""
    return {name: {"unit": unit, "meaning": meaning} for name, (unit, meaning) in DEFINITIONS.items()}


#: How percentiles are computed; stands beside the definitions.
PERCENTILE_METHOD = "Linear interpolation between the two nearest requests; std is the population standard deviation."
