"""What is wrong with a request is said in a sentence that names the field."""

import json

import pytest

from toolkit.gateway import asking, fields
from toolkit.gateway.refusals import Refusal

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("changes", "param", "sentence"),
    [
        ({"model": None}, "model", "You must provide a model parameter."),
        ({"messages": None}, "messages", "You must provide a messages parameter."),
        ({"messages": []}, "messages", "'messages' must be a list with at least one message."),
        ({"messages": [{"role": "user"}]}, "messages[0].content",
         "'messages[0].content' must be a text or a list of parts."),
        ({"messages": [{"role": "bot", "content": ""}]}, "messages[0].role",
         "'messages[0].role' is 'bot'; it must be one of system, developer, user, assistant."),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content",
         "In 'messages[0].content' parts of type 'image_url' are not supported: this server reads text."),
        ({"messages": [{"role": "tool", "content": "1"}]}, "messages[0]", fields.NO_TOOLS),
        ({"tools": [{"type": "function"}]}, "tools", fields.NO_TOOLS),
        ({"tool_choice": "required"}, "tool_choice", fields.NO_TOOLS),
        ({"logprobs": True, "top_logprobs": 3}, "top_logprobs", fields.NO_TOP_LOGPROBS),
        ({"logprobs": 2}, "logprobs", "'logprobs' is 2; it must be true or false."),
        ({"frequency_penalty": 2.5}, "frequency_penalty", "'frequency_penalty' is 2.5; it must be from -2 to 2."),
        ({"temperature": True}, "temperature", "'temperature' is True; it must be a number."),
        ({"temperature": float("nan")}, "temperature", "'temperature' is nan; it must be from 0 to 2."),
        ({"n": 17}, "n", "'n' is 17; it must be from 1 to 16."),
        ({"max_tokens": 1.5}, "max_tokens", "'max_tokens' is 1.5; it must be an integer."),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "'stop' has 5 texts; there may be 4."),
        ({"stop": [1]}, "stop", "'stop' must be a text or a list of texts."),
        ({"stream": "yes"}, "stream", "'stream' is 'yes'; it must be true or false."),
        ({"stream_options": {}}, "stream_options", "'stream_options' is only allowed when 'stream' is true."),
        ({"response_format": {"type": "xml"}}, "response_format",
         "'response_format' is an object whose 'type' is text, json_object, or json_schema with a "
         "'json_schema' that has a 'schema'."),
        ({"colour": "red"}, "colour", "Unrecognized request argument supplied: colour"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)  # fmt: skip
def test_a_wrong_chat_is_refused_with_its_field(changes, param, sentence):
    asked = {"model": "demo", "messages": MESSAGES} | changes
    with pytest.raises(Refusal) as caught:
        asking.chat({name: value for name, value in asked.items() if value is not None})

    assert caught.value.document()["error"] == {
        "message": sentence,
        "type": "invalid_request_error",
        "param": param,
        "code": None,
    }


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"prompt": ""}, "'prompt' is empty: there is nothing to continue."),
        ({"prompt": [1, 2]}, "'prompt' must be a text or a list of texts; tokens are not taken by this server."),
        ({"suffix": "x"}, "'suffix' is not supported: the models of this server continue a text at its end."),
        ({"logprobs": 1}, fields.NO_TOP_LOGPROBS),
        ({"logprobs": 2, "temperature": 0}, fields.NO_TOP_LOGPROBS),
        ({"logprobs": 6}, "'logprobs' is 6; it must be from 0 to 5."),
        ({"best_of": 2}, "'best_of' is not supported: it needs log probabilities. Use 'n'."),
        ({"prompt": ["x"] * 65}, "65 answers were asked for; one request may ask for 64."),
        ({"messages": MESSAGES}, "Unrecognized request argument supplied: messages"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_a_wrong_completion_is_refused(changes, sentence):
    with pytest.raises(Refusal) as caught:
        asking.completion({"model": "demo", "prompt": "x"} | changes)

    assert str(caught.value) == sentence


def test_what_asks_for_nothing_is_taken():
    neutral = dict.fromkeys(fields.REFUSED)
    neutral |= {
        "tools": [],
        "tool_choice": "auto",
        "logit_bias": {},
        "store": False,
        "user": "u",
        "metadata": {"a": "b"},
    }
    ask = asking.chat({"model": "demo", "messages": MESSAGES, "response_format": {"type": "text"}, **neutral})

    assert (json.loads(ask.prompts[0]), ask.n, ask.stops, ask.guide) == (MESSAGES, 1, (), None)
    assert ask.sampling == {"temperature": 1.0, "top_p": 1.0}


def test_the_newer_limit_wins_and_seeds_wrap_into_tritons_type():
    both = {"model": "demo", "messages": MESSAGES, "max_tokens": 9, "max_completion_tokens": 4, "seed": -1}
    ask = asking.chat(both)

    assert (ask.max_tokens, ask.seed) == (4, 2**64 - 1)
    assert (
        asking.completion({"model": "demo", "prompt": "x"}).seed
        != asking.completion({"model": "demo", "prompt": "x"}).seed
    )
