"""OpenAI's protocol: what a server counts is believed, what it does not is estimated; errors come in every form."""

import asyncio
import json
import statistics

import pytest

from tests.bench.test_http1 import server
from toolkit import bench
from toolkit.bench import http1
from toolkit.bench.answer import Answer, SendFailed
from toolkit.bench.latency import itl_ms, ttft_ms
from toolkit.bench.protocols import openai
from toolkit.errors import ServerError, UnknownName, UsageError
from toolkit.specs import LoadProfile


def run(url, **changes):
    profile = {"url": url, "model": "", "concurrency": 4, "requests": 12, "osl": 32}
    return bench.run(LoadProfile(**(profile | changes)))


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("knows", [["include_usage", "continuous_usage_stats"], ["include_usage"]])
def test_several_tokens_in_a_chunk_do_not_make_tokens_look_slow(serve, endpoint, knows):
    served = serve(ttft_s=0.05, gap_s=0.04, tokens_per_chunk=4, knows=knows)
    found = run(served.url("openai+http"), endpoint=endpoint)
    truth = served.truth()

    assert {record.outcome for record in found.records} == {"ok"}
    for record in found.records:
        times = truth[record.request_id]["times"]
        happened_ms = 1000 * (times[-1] - times[0]) / (32 - 4)
        assert (record.output_tokens, record.first_chunk_tokens, record.chunks) == (32, 4, 8)
        assert record.input_tokens == 7
        assert itl_ms(record) == pytest.approx(happened_ms, abs=2)
        assert ttft_ms(record) > 1000 * (times[0] - truth[record.request_id]["start"])
    assert {record.token_count_source for record in found.records} == {"server"}
    late = [ttft_ms(r) - 1000 * (truth[r.request_id]["times"][0] - truth[r.request_id]["start"]) for r in found.records]
    assert statistics.median(late) < 60


def test_a_server_without_usage_has_its_chunks_counted(serve):
    found = run(serve(knows=[]).url("openai+http"))
    document = bench.summarise(found, {}).document
    assert {(r.output_tokens, r.chunks, r.token_count_source) for r in found.records} == {(32, 32, "chunks")}
    assert found.server["has_eos_control"] is False
    assert (
        "The server does not count output tokens: every response with text counts as one token." in document["warnings"]
    )


def test_an_answer_that_is_not_streamed_is_one_chunk(serve):
    found = run(serve(ttft_s=0.02).url("openai+http"), is_streaming=False)
    assert {(r.output_tokens, r.chunks, r.outcome) for r in found.records} == {(32, 1, "ok")}


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ({"fail_every": 1}, "server_error", "CUDA out of memory"),
        ({"is_malformed": True}, "bad_response", "An event is not JSON: b'not json'."),
        ({"is_done_said": False}, "bad_response", "The stream ended without [DONE] and without a finish_reason."),
        ({"status": 429}, "overloaded", "HTTP 429: No. "),
        ({"status": 500}, "server_error", "HTTP 500: No. "),
    ],
)
def test_failures_are_counted_by_kind(serve, script, error, message):
    found = run(serve(**script).url("openai+http"))
    assert {(r.outcome, r.error, r.message) for r in found.records} == {("failed", error, message)}


def test_a_model_that_is_not_there_is_named_with_those_that_are(serve):
    with pytest.raises(UnknownName, match="'mok'") as caught:
        run(serve().url("openai+http"), model="mok")
    assert "mock" in caught.value.hint


def test_the_first_model_is_taken_where_none_is_named(serve):
    assert run(serve().url("openai+http")).server["model"] == "mock"


def test_an_endpoint_that_is_none_is_refused(serve):
    with pytest.raises(UsageError, match="There is no endpoint 'responses'."):
        run(serve().url("openai+http"), endpoint="responses")


def test_a_triton_is_no_openai_server(serve):
    with pytest.raises(ServerError, match="No OpenAI-compatible server answers at") as caught:
        run(serve().url("openai+http").replace("/v1", "/v2"))
    assert "The URL ends where /models begins" in caught.value.hint


STREAMED = (
    {"choices": [{"delta": "a"}]},
    {"choices": [{"delta": {"content": ["a"]}}]},
)
WHOLE = ({"choices": [{"message": "a"}]},)
EITHER = (
    {"choices": [1]},
    {"choices": 5},
    {"choices": [], "usage": [1]},
    {"choices": [], "usage": {"completion_tokens": "7"}},
)


def sent(event, *, is_streaming):
    """Send one request to a server that answers with this."""
    raw = json.dumps(event).encode()
    body = b"data: " + raw + b"\n\ndata: [DONE]\n\n" if is_streaming else raw

    async def main():
        async with server([b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body), body]) as url:
            profile = LoadProfile(url=f"openai+{url}", model="m", requests=1, is_streaming=is_streaming)
            client, answer = http1.Client(url), Answer()
            try:
                await openai.OpenAISession(client, profile, server="x").send(openai.PROBE, answer)
            finally:
                await client.close()
            return answer

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("event", "is_streaming"),
    [(event, True) for event in (*STREAMED, *EITHER)] + [(event, False) for event in (*WHOLE, *EITHER)],
)
def test_json_of_another_form_is_a_bad_response_and_no_bug(event, is_streaming):
    with pytest.raises(SendFailed, match="An event is JSON of another form than OpenAI's: b'{") as caught:
        sent(event, is_streaming=is_streaming)
    assert caught.value.kind == "bad_response"


@pytest.mark.parametrize("is_streaming", [True, False])
def test_an_error_that_is_null_is_none(is_streaming):
    said = {"delta": {"content": "a"}, "message": {"content": "a"}}
    assert sent({"error": None, "choices": [said]}, is_streaming=is_streaming).chunks == 1
