"""Messages become the prompt that Hugging Face's own `apply_chat_template` makes of them."""

import json

import pytest

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA_3 = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = "" %}
{%- endif %}
<|system|>{{ "Cutting Knowledge Date: " + strftime_now("%Y") }}{{ system }}<|eot|>
{%- for message in messages %}
    {%- if message.tool_calls is defined %}
{{- message.tool_calls | tojson(indent=2) }}
    {%- else %}
{{- '<|' + message['role'] + '|>' + message['content'] | trim + '<|eot|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|assistant|>' }}{%- endif %}
"""
MISTRAL = """{{ bos_token }}{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]
{% elif message['role'] == 'assistant' %}{% generation %}{{ message['content'] }}{{ eos_token }}{% endgeneration %}
{% endif %}{% endfor %}"""
GEMMA_3 = """{{ bos_token }}{% for message in messages %}{% if loop.index0 > 5 %}{% break %}{% endif %}
{{- '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}
{%- if message['content'] is string %}{{ message['content'] | trim }}{% else %}
{%- for item in message['content'] %}{% if item['type'] == 'text' %}{{ item['text'] | trim }}{% endif %}{% endfor %}
{%- endif %}{{ '<end_of_turn>\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
TEMPLATES = {"chatml": CHATML, "llama 3": LLAMA_3, "mistral": MISTRAL, "gemma 3": GEMMA_3}
USER = {"role": "user", "content": "  Grüße 你好 \U0001f680 <b>&amp;</b> "}
CHATS = [
    [USER],
    [USER, {"role": "assistant", "content": "Hi."}, {"role": "user", "content": "And?\n"}],
]
TOKENS = {"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": False}, "pad_token": None}


@pytest.fixture
def chat(served):
    return served("preprocessing", "chat")


def folder_with(tmp_path, template, **more):
    settings = {**TOKENS, "chat_template": template, **more}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return tmp_path


def by_hugging_face(template, messages):
    from transformers.utils.chat_template_utils import render_jinja_template

    rendered, _ = render_jinja_template(
        [messages], chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
    )
    return rendered[0]


@pytest.mark.parametrize("messages", CHATS, ids=["one message", "three messages"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_the_prompt_equals_hugging_faces(chat, tmp_path, name, messages):
    made = chat.Chat.of(folder_with(tmp_path, TEMPLATES[name])).text(json.dumps(messages))

    assert made == by_hugging_face(TEMPLATES[name], messages)


def test_tool_calls_pass_through_to_the_template(chat, tmp_path):
    messages = [USER, {"role": "assistant", "content": None, "tool_calls": [{"name": "f<x>", "arguments": {"a": "é"}}]}]
    made = chat.Chat.of(folder_with(tmp_path, LLAMA_3)).text(json.dumps(messages))

    assert made == by_hugging_face(LLAMA_3, messages)
    assert '"name": "f<x>"' in made


def test_parts_of_text_are_a_list_for_a_template_that_loops_over_them_and_lines_for_others(chat, tmp_path):
    messages = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    document = json.dumps(messages)

    assert chat.Chat.of(folder_with(tmp_path, GEMMA_3)).text(document) == by_hugging_face(GEMMA_3, messages)
    assert "user\na\nb<|im_end|>" in chat.Chat.of(folder_with(tmp_path, CHATML)).text(document)


def test_a_file_of_its_own_goes_before_the_settings_and_of_several_the_default_is_taken(chat, tmp_path):
    named = [{"name": "rag", "template": "no"}, {"name": "default", "template": "yes {{ eos_token }}"}]
    folder = folder_with(tmp_path, named)
    assert chat.Chat.of(folder).text('[{"role": "user", "content": "a"}]') == "yes </s>"

    (folder / "chat_template.jinja").write_text("file", encoding="utf-8")
    assert chat.Chat.of(folder).text('[{"role": "user", "content": "a"}]') == "file"
    assert chat.Chat.of(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("messages", "sentence"),
    [
        ("{", "messages is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)."),
        ("[" * 100_000, "messages is not JSON: "),
        ("{}", "messages must be a JSON list with at least one message."),
        ("[]", "messages must be a JSON list with at least one message."),
        ("[1]", 'messages[0] must be an object with a "role" and a "content".'),
        ('[{"role": "user"}]', "messages[0].content must be text or a list of parts."),
        ('[{"role": "user", "content": 5}]', "messages[0].content must be text or a list of parts."),
        (
            '[{"role": "user", "content": [{"type": "image_url"}]}]',
            "messages[0].content has a part of type 'image_url'; this repository serves text.",
        ),
        (
            '[{"role": "assistant", "content": "a"}]',
            "The model's chat template refuses these messages: Conversation roles must alternate"
            " user/assistant/user/assistant/....",
        ),
    ],
)
def test_what_is_no_chat_is_refused_in_a_sentence(chat, tmp_path, messages, sentence):
    made = chat.Chat.of(folder_with(tmp_path, MISTRAL))

    with pytest.raises(chat.Refused) as refused:
        made.text(messages)
    assert str(refused.value).startswith(sentence.rstrip("."))


@pytest.mark.parametrize(
    "template",
    [
        "{{ messages[0].content + 1 }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{% for x in range(10**9) %}{% endfor %}",
    ],
)
def test_a_template_that_breaks_or_reaches_out_is_a_sentence_too(chat, tmp_path, template):
    made = chat.Chat.of(folder_with(tmp_path, template))

    with pytest.raises(chat.Refused, match=r"^The model's chat template "):
        made.text('[{"role": "user", "content": "a"}]')


def test_half_of_a_character_is_refused_before_the_tokenizer_meets_it(chat, tmp_path):
    one = chat.Chat.of(folder_with(tmp_path, CHATML))
    with pytest.raises(chat.Refused, match="messages has half of a character"):
        one.text('[{"role": "user", "content": "\\ud800"}]')
