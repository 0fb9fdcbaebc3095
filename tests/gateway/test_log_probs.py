"""Log probabilities stay beside their tokens: whole or streamed, cut by stop strings, one character of several."""

import json

import openai
import pytest

from toolkit.gateway.fields import NO_LOGPROBS
from toolkit.gateway.log_probs import Alignment, Token

SAID = ["Hel", "lo", " 😀", "!"]
LOG_PROBS = [[-0.5], [-0.25], [-1.0, -2.0, -3.0], [-4.0]]


@pytest.fixture(scope="module")
def running(gateways):
    with gateways() as running:
        yield running


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def prompt(**changes):
    return json.dumps({"say": SAID, "log_probs": LOG_PROBS} | changes)


def chat(client, **options):
    asked = [{"role": "user", "content": prompt()}]
    return client.chat.completions.create(model="demo", messages=asked, logprobs=True, **options)


def told(content):
    return [(token.token, token.logprob, bytes(token.bytes).decode()) for token in content]


TOLD = [
    ("Hel", -0.5, "Hel"), ("lo", -0.25, "lo"), (" 😀", -1.0, " 😀"), ("", -2.0, ""), ("", -3.0, ""), ("!", -4.0, "!")
]  # fmt: skip


def test_a_whole_chat_tells_each_token(client):
    (choice,) = chat(client).choices
    assert choice.message.content == "Hello 😀!"
    assert told(choice.logprobs.content) == TOLD


def test_a_streamed_chat_tells_them_beside_their_text(client):
    chunks = [chunk.choices[0] for chunk in chat(client, stream=True) if chunk.choices]
    seen = [(chunk.delta.content, told(chunk.logprobs.content)) for chunk in chunks if chunk.logprobs]
    assert [text for text, _ in seen] == SAID
    assert [one for _, tokens in seen for one in tokens] == TOLD


def test_what_a_stop_string_cuts_off_has_no_probabilities(client):
    (choice,) = chat(client, stop=["o 😀"]).choices
    assert choice.message.content == "Hell"
    assert told(choice.logprobs.content) == TOLD[:1]  # "lo" is shown in part


def test_a_completion_tells_offsets_and_greedy_ones_the_most_likely_token(client):
    (choice,) = client.completions.create(model="demo", prompt=prompt(), logprobs=0).choices
    assert choice.logprobs.tokens == [token for token, _, _ in TOLD]
    assert choice.logprobs.token_logprobs == [log_prob for _, log_prob, _ in TOLD]
    assert (choice.logprobs.text_offset, choice.logprobs.top_logprobs) == ([0, 3, 5, 7, 7, 7], None)
    (choice,) = client.completions.create(model="demo", prompt=prompt(), logprobs=1, temperature=0).choices
    assert choice.logprobs.top_logprobs[0] == {"Hel": -0.5}


def test_who_does_not_ask_is_told_nothing_and_costs_no_tensor(client, running):
    asked = [{"role": "user", "content": prompt()}]
    (choice,) = client.chat.completions.create(model="demo", messages=asked).choices
    assert choice.logprobs is None
    assert "return_log_probs" not in running.triton.asked[-1]


@pytest.mark.parametrize("model", ["nvidia", "plain"])
def test_a_model_whose_messages_name_no_tokens_refuses(client, model):
    with pytest.raises(openai.BadRequestError, match="Log probabilities are not available") as caught:
        client.completions.create(model=model, prompt=prompt(), logprobs=0)
    assert caught.value.body["message"] == NO_LOGPROBS


def test_tokens_wait_for_their_text():
    aligned = Alignment(offset=10)
    aligned.take("ab", [-1.0])
    aligned.take("cd", [-2.0, -3.0])
    assert aligned.shown("a") == []
    assert aligned.shown("bc") == [Token("ab", -1.0, 10)]
    assert aligned.shown("d") == [Token("cd", -2.0, 12), Token("", -3.0, 14)]
