"""OpenAI's own client against the real model behind the gateway."""

import concurrent.futures
import hashlib
import json
import time

import httpx
import openai
import pytest

from tests.e2e.conftest import chat, run_trtk
from tests.e2e.test_main_job import PROMPTS, cpu_seconds, generate

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.engine]
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="module")
def client(served):
    gateway, _ = served["spec"]["companions"]
    with openai.OpenAI(base_url=gateway["url"], api_key="none", max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture(scope="module")
def model(client):
    (only,) = client.models.list()
    return only.id


def streamed(client, model, prompt, **more):
    stream = client.completions.create(model=model, prompt=prompt, stream=True, temperature=0, **more)
    return "".join(chunk.choices[0].text for chunk in stream)


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_a_completion_is_the_text_that_triton_gives_whole_and_streamed(client, model, served, prompt):
    expected = generate(served, prompt, tokens=24)
    whole = client.completions.create(model=model, prompt=prompt, max_tokens=24, temperature=0)

    assert whole.choices[0].text.encode() == expected.encode()
    assert streamed(client, model, prompt, max_tokens=24).encode() == expected.encode()


def test_a_chat_is_the_models_own_template_typed_out(client, model, served):
    whole = client.chat.completions.create(model=model, messages=QUESTION, max_tokens=24, temperature=0)
    chunks = list(
        client.chat.completions.create(
            model=model,
            messages=QUESTION,
            max_tokens=24,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert whole.choices[0].message.content == generate(served, chat(QUESTION[0]["content"]), tokens=24)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage
    assert whole.usage.completion_tokens <= 24


def test_a_chat_without_a_limit_ends_with_the_model(client, model):
    answer = client.chat.completions.create(model=model, messages=QUESTION, temperature=0)

    assert (answer.choices[0].finish_reason, "Paris" in answer.choices[0].message.content) == ("stop", True)


def test_answers_end_for_the_reason_that_is_given(client, model):
    def ended(**more):
        choice = client.completions.create(model=model, prompt="1 2 3 4 5 6", temperature=0, **more).choices[0]
        return choice.text, choice.finish_reason

    text, reason = ended(max_tokens=12)
    assert reason == "length"
    stop = text[4:7]
    assert ended(max_tokens=12, stop=[stop]) == (text[: text.index(stop)], "stop")


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(client, model):
    def said(seed):
        chosen = {"temperature": 1.0, "top_p": 0.95, "seed": seed, "max_tokens": 24}
        return client.completions.create(model=model, prompt="Once upon a time", **chosen).choices[0].text

    assert said(1) == said(1)
    assert len({said(seed) for seed in range(1, 5)}) > 1


def test_an_answer_can_be_held_to_a_schema(client, model):
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"]}
    answer = client.chat.completions.create(
        model=model,
        messages=QUESTION,
        max_tokens=64,
        temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "place", "schema": schema}},
    )

    assert json.loads(answer.choices[0].message.content).keys() == {"city"}


def test_what_the_engine_refuses_is_a_400_in_its_words(client, model):
    with pytest.raises(openai.BadRequestError, match="8192") as caught:
        client.completions.create(model=model, prompt="Hi", max_tokens=9000)

    assert "Traceback" not in str(caught.value.body)


def test_a_thousand_refusals_beside_good_answers_leave_the_server_standing(model, served, place):
    gateway, _ = served["spec"]["companions"]

    def ask(number):
        limit = 1 if number % 20 == 0 else 9000
        body = {"model": model, "prompt": "Hi", "max_tokens": limit, "stream": number % 2 == 0}
        return http.post(f"{gateway['url']}/completions", json=body).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as threads, httpx.Client(timeout=120) as http:
        statuses = list(threads.map(ask, range(1000)))
    assert statuses == [200 if number % 20 == 0 else 400 for number in range(1000)]
    folder, env = place
    (status,) = json.loads(run_trtk("status", "--json", cwd=folder, env=env)[1])["servers"]
    assert (status["endpoint"]["pid"], status["restarts"], status["last_failure"]) == (served["pid"], 0, "")


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_client_that_leaves_does_not_keep_the_engine_busy(client, model, served, is_stream):
    endless = {"max_tokens": 4000, "temperature": 0, "extra_body": {"ignore_eos": True}}
    if is_stream:
        with client.completions.create(model=model, prompt="Count: 1 2 3", stream=True, **endless) as stream:
            next(iter(stream))
    else:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=1.5).completions.create(model=model, prompt="Count: 1 2", **endless)
    time.sleep(2)

    assert cpu_seconds(served["pid"], over_s=2) < 1.0


def test_sixteen_streams_at_once_are_the_answers_that_each_gives_alone(client, model, served):
    prompts = [f"{prompt}\n{number}" for number in range(3) for prompt in PROMPTS.values()][:16]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        texts = list(pool.map(lambda prompt: streamed(client, model, prompt, max_tokens=4), prompts))

    assert all(texts)
    assert texts[:2] == [generate(served, prompt, tokens=4) for prompt in prompts[:2]]


def test_every_request_is_in_the_audit_log_with_what_answered_it(client, model, built, place):
    folder, env = place
    engine, _ = built("int4")
    answer = client.completions.with_raw_response.create(model=model, prompt="Hi", max_tokens=3)
    code, out, err = run_trtk("audit", "tail", "audit.jsonl", "--lines", 1, "--json", cwd=folder, env=env)
    assert code == 0, err
    (last,) = json.loads(out)["requests"]

    assert (last["request_id"], last["outcome"]) == (answer.headers["x-request-id"], "ok")
    assert last["artefact"] == hashlib.sha256((engine / "manifest.json").read_bytes()).hexdigest()
    assert (last["input_tokens"], last["output_tokens"]) == (
        answer.parse().usage.prompt_tokens,
        answer.parse().usage.completion_tokens,
    )
    assert run_trtk("audit", "verify", "audit.jsonl", cwd=folder, env=env)[0] == 0
    log = folder / "changed.jsonl"
    log.write_bytes((folder / "audit.jsonl").read_bytes().replace(b'"status":200', b'"status":201', 1))
    code, _, err = run_trtk("audit", "verify", log, cwd=folder, env=env)
    assert (code, "is no record, or one that was changed" in err) == (7, True)
