"""The official client, and curl's habits, against a gateway whose Triton says what the test wrote."""

import contextlib
import json
import socket
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest

from toolkit import templating
from toolkit.gateway import statuses


@pytest.fixture(scope="module")
def running(gateways, tmp_path_factory):
    from toolkit.gateway.config import Audit, Limits

    audit = Audit(path=str(tmp_path_factory.mktemp("audit") / "audit.jsonl"))
    with gateways(limits=Limits(body_bytes=20_000, request_s=20), audit=audit) as one:
        yield one


@pytest.fixture(scope="module")
def client(running, client_of):
    with client_of(running) as made:
        yield made


def records(running):
    return [json.loads(line) for line in Path(running.config.audit.path).read_text(encoding="utf-8").splitlines()]


def ask(client, prompt, **more):
    return client.completions.create(model="demo", prompt=prompt, **more)


def chat(client, prompt, **more):
    return client.chat.completions.create(model="demo", messages=[{"role": "user", "content": prompt}], **more)


def refused(call):
    with pytest.raises(openai.APIStatusError) as caught:
        call()
    error = caught.value
    return error.status_code, error.body["message"], error.body["type"], error.body["code"]


def test_a_completion_is_what_the_model_says_with_its_token_counts(client, script, running):
    answer = ask(client, script("Hel", "lo ", "你好 🚀"), max_tokens=9)

    assert [(choice.index, choice.text, choice.finish_reason) for choice in answer.choices] == [
        (0, "Hello 你好 🚀", "stop")
    ]
    usage = answer.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (7, 3, 10)
    assert (answer.object, answer.model, answer.system_fingerprint) == ("text_completion", "demo", f"fp_{'ab' * 6}")
    assert running.triton.ids[-1] == f"{answer.id}-0"


def test_a_streamed_chat_is_the_whole_one_piece_by_piece(client, script):
    prompt = script(' "quoted"\n', "", "中文", " end ")
    whole = chat(client, prompt).choices[0].message
    chunks = list(chat(client, prompt, stream=True, stream_options={"include_usage": True}))

    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert "".join(delta.content or "" for delta in deltas) == whole.content == ' "quoted"\n中文 end '
    assert (deltas[0].role, deltas[0].content, whole.role) == ("assistant", "", "assistant")
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None] * (len(deltas) - 1) + [
        "stop"
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage.completion_tokens == 4
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}


@pytest.mark.parametrize("model", ["demo", "nvidia"])
def test_each_chunk_has_its_choices_counts_so_far_where_they_are_asked_for(client, script, model):
    options = {"include_usage": True, "continuous_usage_stats": True}
    settings = {"stream": True, "stream_options": options}
    pieces = list(client.completions.create(model=model, prompt=script("a", "b", "c"), n=2, **settings))
    chunks = list(chat(client, script("a", "b"), **settings))

    for index in (0, 1):
        counts = [one.usage for one in pieces if one.choices and one.choices[0].index == index]
        assert [(one.prompt_tokens, one.completion_tokens, one.total_tokens) for one in counts] == [
            (7, 1, 8),
            (7, 2, 9),
            (7, 3, 10),
            (7, 3, 10),
        ]
    assert (pieces[-1].choices, pieces[-1].usage.completion_tokens) == ([], 6)
    assert [chunk.usage.completion_tokens for chunk in chunks] == [0, 1, 2, 2, 2]
    alone = {"include_usage": False, "continuous_usage_stats": True}
    silent = ask(client, script("a"), stream=True, stream_options=alone)
    assert {chunk.usage for chunk in silent} == {None}


def test_tokens_that_a_backend_counts_by_message_are_added_up(client, script):
    prompt = script("a", "b", "c")
    for limit, reason in ((3, "length"), (4, "stop")):
        answer = client.completions.create(model="nvidia", prompt=prompt, max_tokens=limit)
        assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (3, reason)


def test_the_events_are_written_as_openai_writes_them(running, script):
    body = {"model": "demo", "prompt": script("a", "b"), "max_tokens": 2, "stream": True}
    with httpx.stream("POST", f"{running.url}/v1/completions", json=body, headers={"x-request-id": "mine-1"}) as reply:
        lines = list(reply.iter_lines())

    assert (reply.status_code, reply.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert reply.headers["x-request-id"] == "mine-1"
    assert lines[-2:] == ["data: [DONE]", ""]
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    assert [event["choices"] for event in events] == [
        [{"index": 0, "text": "a", "logprobs": None, "finish_reason": None}],
        [{"index": 0, "text": "b", "logprobs": None, "finish_reason": None}],
        [{"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}],
    ]


def test_what_is_asked_for_reaches_the_model_in_its_tensors(client, script, running):
    prompt = script("x")
    ask(
        client,
        prompt,
        max_tokens=5,
        temperature=0.5,
        top_p=0.25,
        seed=3,
        presence_penalty=1.0,
        stop=["END", "\n"],
        extra_body={"min_tokens": 2, "ignore_eos": True},
    )
    assert running.triton.asked[-1] == {
        "text_input": [prompt],
        "max_tokens": [5],
        "min_tokens": [2],
        "end_id": [-1],
        "seed": [3],
        "temperature": [0.5],
        "top_p": [0.25],
        "presence_penalty": [1.0],
        "stop_words": ["END", "\n"],
        "stream": [True],
        "exclude_input_in_output": [True],
        "return_num_input_tokens": [True],
        "return_num_output_tokens": [True],
    }

    ask(client, prompt, temperature=0)
    greedy = running.triton.asked[-1]
    assert (greedy["top_k"], greedy["max_tokens"]) == ([1], [16])
    assert not greedy.keys() & {"temperature", "top_p", "seed"}


def test_messages_go_to_the_models_own_template(client, script, running):
    prompt = script("x")
    parts = [{"type": "text", "text": prompt[:9]}, {"type": "text", "text": prompt[9:]}]
    messages = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    client.chat.completions.create(model="demo", messages=messages)

    asked = running.triton.asked[-1]
    assert asked["text_input"] == [""]
    assert json.loads(asked["messages"][0]) == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": prompt},
    ]
    assert asked["max_tokens"] == [2**31 - 1]


def test_a_json_schema_becomes_the_models_guide(client, script, running):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    chat(client, script("{}"), response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})

    asked = running.triton.asked[-1]
    assert (asked["guided_decoding_guide_type"], json.loads(asked["guided_decoding_guide"][0])) == (
        ["json_schema"],
        schema,
    )


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_stop_string_is_no_part_of_the_answer_and_ends_the_work(client, script, running, until, is_stream):
    prompt = script("one tw", "o thr", "ee four", *["more"] * 100, delay_s=0.02)
    answer = ask(client, prompt, stop=["two three"], stream=is_stream)

    choices = [chunk.choices[0] for chunk in answer] if is_stream else [answer.choices[0]]
    assert ("".join(choice.text for choice in choices), choices[-1].finish_reason) == ("one ", "stop")
    until(lambda: running.triton.ids[-1] in running.triton.left)


def test_several_answers_to_several_prompts_come_in_their_order(client, script, running):
    prompts = [script("first"), script("second")]
    answer = ask(client, prompts, n=2, seed=2**64 - 1 - 2**63, echo=True)

    assert [(choice.index, choice.text) for choice in answer.choices] == [
        (0, prompts[0] + "first"),
        (1, prompts[0] + "first"),
        (2, prompts[1] + "second"),
        (3, prompts[1] + "second"),
    ]
    assert answer.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 14,
        "completion_tokens": 4,
        "total_tokens": 18,
    }
    seeds = sorted(asked["seed"][0] for asked in running.triton.asked[-4:])
    assert seeds == [2**63 - 1, 2**63 - 1, 2**63, 2**63]
    chunks = list(ask(client, prompts, n=2, stream=True))
    by_index = {}
    for chunk in chunks:
        by_index.setdefault(chunk.choices[0].index, []).append(chunk.choices[0].text)
    assert {index: "".join(texts) for index, texts in by_index.items()} == {
        0: "first",
        1: "first",
        2: "second",
        3: "second",
    }


STEP = "in ensemble 'ensemble', "
WRONG = "top_p is 7; it must be between 0 and 1."


@pytest.mark.parametrize(
    ("failure", "status", "kind", "words"),
    [
        ({"fail": f"{STEP}INVALID_ARG: {WRONG}"}, 400, "invalid_request_error", WRONG),
        ({"fail": f"{STEP}{STEP}UNAVAILABLE: The server is stopping."}, 503, "server_error", "The server is stopping."),
        ({"fail": "CANCELLED: The request was cancelled."}, 503, "server_error", "The request was cancelled."),
        ({"fail": "INTERNAL: top_p unexpected shape\nat line 3"}, 500, "server_error", "top_p unexpected shape"),
        ({"fail": "UNKNOWN: Stopped."}, 500, "server_error", "Stopped."),
        ({"fail": "UNAVAILABLE: Exceeds maximum queue size: 3"}, 429, "requests", None),
        ({"fail": f"{STEP}Exceeds maximum queue size"}, 429, "requests", None),
        ({"fail": "Request for unknown model: 'x' is not found"}, 404, "invalid_request_error", ...),
        ({"fail": "Request for unknown model: 'x' has no available versions"}, 503, "server_error", ...),
        ({"fail": "Prompt length (9) exceeds maximum input length (8)."}, 400, "invalid_request_error", ...),
        ({"fail": "CUDA: out of memory"}, 500, "server_error", ...),
        ({"abort": ["INVALID_ARGUMENT", f"{STEP}{WRONG}"]}, 400, "invalid_request_error", WRONG),
        ({"abort": ["UNAVAILABLE", "Exceeds maximum queue size"]}, 429, "requests", None),
        ({"abort": ["UNAVAILABLE", "Socket closed"]}, 503, "server_error", "Socket closed"),
        ({"abort": ["INTERNAL", "The model stopped on this request."]}, 500, "server_error", ...),
        ({"abort": ["INTERNAL", ""]}, 500, "server_error", "The model server stopped on this request."),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_what_the_model_refuses_has_its_status_and_one_sentence(
    client, script, failure, status, kind, words, is_stream
):
    found = refused(lambda: list(ask(client, script(**failure), stream=is_stream)))

    said = next(iter(failure.values()))
    expected = {None: "The model's queue is full; try again later.", ...: said if "fail" in failure else said[1]}
    assert (found[0], found[2]) == (status, kind)
    assert found[1] == expected.get(words, words)


def test_the_model_is_asked_for_codes_in_the_words_that_it_knows(running, client, script):
    ask(client, script("x"))

    assert running.triton.parameters[-1][statuses.NAMES_CODE].bool_param
    shared = templating.directory() / "inflight_batcher" / "shared" / "served.py"
    assert f'NAMES_CODE = "{statuses.NAMES_CODE}"' in shared.read_text(encoding="utf-8")


def test_an_error_in_the_middle_of_a_stream_is_its_last_event(client, script):
    stream = ask(client, script("one", fail="INTERNAL: The model stopped."), stream=True)

    assert next(stream).choices[0].text == "one"
    with pytest.raises(openai.APIError, match=r"The model stopped\."):
        next(stream)


def test_a_model_that_triton_does_not_have_or_nobody_serves_is_not_found(client):
    assert refused(lambda: client.completions.create(model="gone", prompt="x"))[0] == 404
    assert refused(lambda: client.completions.create(model="other", prompt="x")) == (
        404,
        "The model 'other' is not served here.",
        "invalid_request_error",
        "model_not_found",
    )
    assert refused(lambda: client.models.retrieve("other"))[0] == 404


def test_what_a_model_has_no_input_for_is_refused(client):
    status, sentence, _, _ = refused(lambda: client.completions.create(model="plain", prompt="x"))

    assert (status, sentence) == (400, "The model 'plain' has no input 'stream': it cannot do what was asked for.")


def test_models_are_listed(client):
    assert [(model.id, model.object, model.created, model.owned_by) for model in client.models.list()] == [
        (name, "model", 1_700_000_000, "trtk") for name in ("demo", "nvidia", "plain", "gone")
    ]
    assert client.models.retrieve("demo").id == "demo"


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_ends_the_work_within_a_second(running, script, until, is_stream):
    prompt = script(*["more"] * 500, delay_s=0.05)
    body = json.dumps({"model": "demo", "prompt": prompt, "max_tokens": 500, "stream": is_stream}).encode()
    before = len(running.triton.left)
    with socket.create_connection(("127.0.0.1", running.config.port)) as connection:
        head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        until(lambda: running.triton.running == 1)
        if is_stream:
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
    started = time.monotonic()
    until(lambda: len(running.triton.left) > before)

    assert time.monotonic() - started < 1
    until(lambda: records(running)[-1]["outcome"] == "cancelled")
    assert (records(running)[-1]["status"], running.triton.running) == (499, 0)


@pytest.mark.parametrize("body", [b"{", b"[1]", b"\xff\xfe", b'{"model": "demo", "prompt": "\\ud800"}', b"[" * 9000])
def test_a_body_that_is_no_request_is_told_so(running, body):
    reply = httpx.post(f"{running.url}/v1/completions", content=body)

    assert (reply.status_code, reply.json()["error"]["type"]) == (400, "invalid_request_error")
    assert "Traceback" not in reply.text


@pytest.mark.parametrize("size", [20_001, 8 << 20])
def test_a_body_beyond_the_limit_is_refused_to_whoever_sends_it_all(running, size):
    reply = httpx.post(f"{running.url}/v1/completions", content=b"x" * size)

    assert (reply.status_code, reply.json()["error"]["message"]) == (413, "The body of a request may have 20000 bytes.")


def test_a_body_without_a_length_is_held_to_the_limit_too(running):

    def pieces():
        for _ in range(30):
            yield b"x" * 1000

    reply = httpx.post(f"{running.url}/v1/completions", content=pieces())
    assert (reply.status_code, reply.json()["error"]["code"]) == (413, "request_too_large")


def test_unknown_paths_and_methods_are_answered_in_the_same_form(running):
    assert httpx.get(f"{running.url}/v1/engines").json()["error"]["code"] == "unknown_url"
    reply = httpx.get(f"{running.url}/v1/completions")
    assert (reply.status_code, reply.json()["error"]["code"]) == (405, "method_not_supported")


def test_no_path_of_a_request_is_a_path_of_tritons(running):
    for path in ("/v2/repository/models/demo/load", "/v2/models/..%2f..%2frepository/generate", "/v2/logging"):
        assert httpx.post(f"{running.url}{path}", json={}).status_code == 404


def test_tritons_own_generate_is_forwarded_by_the_served_name(running):
    url = f"{running.url}/v2/models/demo"
    asked = {"text_input": "Hi", "max_tokens": 1}

    # Triton is asked for counts as well, which the audit log needs; who asked for none of one kind is not overruled.
    counted = {"return_num_input_tokens": True, "return_num_output_tokens": False, **asked}
    given = httpx.post(f"{url}/generate", json=asked | {"return_num_output_tokens": False}).json()
    assert given == {"path": "/v2/models/ensemble/generate", **counted, "num_input_tokens": 7, "num_output_tokens": 0}
    stream = httpx.post(f"{url}/generate_stream", json=asked)
    assert stream.text == (
        'data: {"text_output": "a", "num_input_tokens": 7, "num_output_tokens": 1}\n\n'
        'data: {"text_output": "b", "num_input_tokens": 7, "num_output_tokens": 2}\n\n'
    )
    assert [(one["input_tokens"], one["output_tokens"]) for one in records(running)[-2:]] == [(7, 0), (7, 2)]
    assert stream.headers["content-type"] == "text/event-stream"
    wrong = httpx.post(f"{url}/generate", json={"text_input": "wrong"})
    assert (wrong.status_code, wrong.json()) == (400, {"error": "max_tokens is 0; it must be 1 or more."})
    for body in (b"{", b"[]", b"\xff\xfe", b""):
        garbage = httpx.post(f"{url}/generate", content=body)
        assert (garbage.status_code, len(garbage.json()["error"]) > 20) == (400, True)
    typed = httpx.post(f"{url}/generate", json={"text_input": "typed"})
    assert (typed.status_code, typed.json()) == (
        400,
        {"error": "Unable to parse JSON bytes array: attempt to access JSON non-string as string"},
    )
    late = httpx.post(f"{url}/generate", json={"text_input": "late"})
    assert (late.status_code, late.headers["retry-after"]) == (429, "1")
    assert late.json() == {"error": "The model's queue is full; try again later."}
    unknown = httpx.post(f"{running.url}/v2/models/other/generate", json=asked)
    assert (unknown.status_code, unknown.json()) == (404, {"error": "The model 'other' is not served here."})


def test_readiness_is_tritons(running):
    assert httpx.get(f"{running.url}/health/ready").json() == {"status": "ready"}
    running.triton.is_ready = False
    try:
        reply = httpx.get(f"{running.url}/health/ready")
        assert (reply.status_code, reply.headers["retry-after"]) == (503, "1")
        assert httpx.get(f"{running.url}/health/live").status_code == 200
    finally:
        running.triton.is_ready = True


def test_metrics_count_requests_tokens_and_first_tokens(running, client, script):
    from prometheus_client.parser import text_string_to_metric_families

    def samples():
        text = httpx.get(f"{running.url}/metrics").text
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    before = samples()
    ask(client, script("a", "b", "c"))
    refused(lambda: client.completions.create(model="nobody", prompt="x"))
    after = samples()

    def grown(*key):
        return after[key] - before.get(key, 0)

    assert grown("trtk_gateway_requests_total", "200", "completions", "demo", "ok") == 1
    assert grown("trtk_gateway_requests_total", "404", "completions", "none", "refused") == 1
    assert grown("trtk_gateway_tokens_total", "demo", "output") == 3
    assert grown("trtk_gateway_tokens_total", "demo", "input") == 7
    assert grown("trtk_gateway_time_to_first_token_seconds_count", "demo") == 1
    assert (after[("trtk_gateway_requests_in_flight",)], after[("trtk_gateway_requests_waiting",)]) == (0, 0)


def test_a_request_is_recorded_without_its_prompt(running, client, script):
    from toolkit.gateway import chain

    answer = client.completions.with_raw_response.create(model="demo", prompt=script("secret", "words"))
    last = records(running)[-1]

    shown = {name: last[name] for name in last if name not in {"hash", "previous", "sequence", "time"} | TIMINGS}
    assert shown == {
        "kind": "request",
        "request_id": answer.headers["x-request-id"],
        "key_id": None,
        "endpoint": "completions",
        "model": "demo",
        "artefact": "ab" * 32,
        "outcome": "ok",
        "status": 200,
        "error": None,
        "input_tokens": 7,
        "output_tokens": 2,
    }
    assert all(last[name] >= 0 for name in TIMINGS)
    assert "secret" not in json.dumps(records(running))
    verified = chain.verify(Path(running.config.audit.path))
    assert (verified.head, verified.records) == (last["hash"], len(records(running)))


TIMINGS = {"queued_ms", "ttft_ms", "duration_ms"}


class Broken:
    """Leases of a programmer who was tired."""

    async def close(self):
        """Nothing."""

    def served(self):
        return []

    def lease(self, name, *, key=""):
        raise ZeroDivisionError(name, key)


def test_our_own_fault_is_a_500_without_its_traceback(gateways, tmp_path):
    from toolkit.gateway.config import Audit

    with gateways(leases=Broken(), audit=Audit(path=str(tmp_path / "audit.jsonl"))) as running:
        reply = httpx.post(f"{running.url}/v1/completions", json={"model": "demo", "prompt": "x"})
        last = records(running)[-1]

    assert (reply.status_code, reply.json()["error"]["type"]) == (500, "server_error")
    assert "Traceback" not in reply.text
    assert "ZeroDivisionError" not in reply.text
    assert (last["kind"], last["outcome"], last["status"]) == ("request", "failed", 500)


def test_requests_beyond_the_line_are_told_to_come_back(gateways, client_of, script, until):
    from toolkit.gateway.config import Limits

    with gateways(limits=Limits(running=1, waiting=1, waiting_s=20)) as running, client_of(running) as client:
        slow, outcomes = script(*["more"] * 20, delay_s=0.05), []
        threads = [threading.Thread(target=lambda: outcomes.append(ask(client, slow))) for _ in range(2)]
        for number, thread in enumerate(threads):
            thread.start()
            until(lambda number=number: running.gateway.admission.running + running.gateway.admission.waiting > number)
        with pytest.raises(openai.RateLimitError, match="Too many requests") as caught:
            ask(client, slow)
        for thread in threads:
            thread.join()

    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert [answer.choices[0].text for answer in outcomes] == ["more" * 20] * 2


def test_an_answer_that_takes_too_long_is_ended(gateways, client_of, script, until):
    from toolkit.gateway.config import Limits

    with gateways(limits=Limits(request_s=0.3)) as running, client_of(running) as client:
        assert refused(lambda: ask(client, script(*["more"] * 50, delay_s=0.1)))[0] == 408
        until(lambda: running.triton.left == running.triton.ids)


def test_a_body_that_does_not_come_is_not_waited_for(gateways):
    from toolkit.gateway.config import Limits

    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{"
    with (
        gateways(limits=Limits(body_s=0.2)) as running,
        socket.create_connection(("127.0.0.1", running.config.port)) as connection,
    ):
        connection.sendall(head)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")


def test_keys_open_and_a_key_taken_back_does_not(gateways, client_of, script, tmp_path):
    from toolkit.gateway import keys

    file = tmp_path / "keys.json"
    key, other = keys.add(file, "one"), keys.add(file, "two")
    with gateways(api_keys=str(file)) as running, client_of(running, key) as client:
        assert ask(client, script("x")).choices[0].text == "x"
        for wrong in (key[:-1] + "?", "trtk-00000000-" + "a" * 43, "none"):
            with client_of(running, wrong) as stranger:
                assert refused(lambda client=stranger: ask(client, script("x")))[0] == 401
                assert refused(lambda client=stranger: client.models.list())[0] == 401
        assert httpx.get(f"{running.url}/metrics").status_code == 401
        assert httpx.post(f"{running.url}/v2/models/demo/generate", json={}).status_code == 401
        assert httpx.get(f"{running.url}/health/live").status_code == 200
        keys.remove(file, "one")
        assert refused(lambda: ask(client, script("x"))) == (
            401,
            "Incorrect API key provided.",
            "invalid_request_error",
            "invalid_api_key",
        )
        with client_of(running, other) as second:
            assert ask(second, script("x")).choices[0].text == "x"


def fill(path):
    """Write until the disk is full."""
    with path.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 100)


@pytest.mark.parametrize(("is_required", "outcome"), [(True, 503), (False, 200)])
def test_a_request_that_cannot_be_recorded_is_refused_unless_asked_otherwise(
    gateways, script, small_disk, is_required, outcome
):
    from toolkit.gateway import chain
    from toolkit.gateway.config import Audit

    disk = small_disk("128k")
    path = disk / "audit.jsonl"
    body = {"model": "demo", "prompt": script("x")}
    with gateways(audit=Audit(path=str(path), is_required=is_required)) as running:
        url = f"{running.url}/v1/completions"
        assert httpx.post(url, json=body).status_code == 200
        filler = disk / "filler"
        fill(filler)
        statuses = [httpx.post(url, json=body).status_code for _ in range(30)]
        assert statuses[-1] == outcome
        if is_required:
            assert httpx.get(f"{running.url}/health/ready").status_code == 503
        filler.unlink()
        assert httpx.post(url, json=body).status_code == 200
    served = [status for status in statuses if status == 200]

    assert chain.verify(path).requests >= len(served) + 2
