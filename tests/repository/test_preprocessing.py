"""Text to the tensors that tensorrt_llm reads."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

spec = importlib.util.spec_from_file_location("tokenizers_made", Path(__file__).parent / "tokenizers_made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)

END_IDS = [1, 7]


@pytest.fixture
def preprocessing(served, tmp_path):
    """Return the model with a tokenizer folder given relative to the repository."""
    engine = tmp_path / "engine"
    engine.mkdir()
    made.byte_level().save(str(engine / "tokenizer.json"))
    (engine / "config.json").write_text(json.dumps({"eos_token_id": END_IDS}))
    model = served("preprocessing", "model").TritonPythonModel()
    parameters = {"tokenizer_dir": "../engine", "max_seq_len": "64"}
    config = {"parameters": {key: {"string_value": value} for key, value in parameters.items()}}
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_repository": str(tmp_path / "repository" / "preprocessing"),
            "model_name": "preprocessing",
        }
    )
    return model


@pytest.fixture
def answer(preprocessing, request_of):
    def ask(*texts, **tensors):
        query = np.array([[text.encode()] for text in texts], object)
        tensors = {"REQUEST_OUTPUT_LEN": np.full((len(texts), 1), 8, np.int32)} | tensors
        return preprocessing.execute([request_of(QUERY=query, **tensors)])[0]

    ask.model = preprocessing
    return ask


@pytest.fixture
def tokenizer():
    return made.byte_level()


def test_a_prompt_gets_its_beginning_token_once(answer, tokenizer):
    plain = tokenizer.encode("hello", add_special_tokens=False).ids

    assert answer("hello").outputs["INPUT_ID"].tolist() == [[0, *plain]]
    assert answer("<s>hello").outputs["INPUT_ID"].tolist() == [[0, *plain]]


def test_prompts_of_a_batch_are_padded_and_measured(answer, tokenizer):
    short, long = tokenizer.encode("a").ids, tokenizer.encode("hello world").ids
    outputs = answer("a", "hello world").outputs

    assert outputs["REQUEST_INPUT_LEN"].tolist() == [[len(short)], [len(long)]]
    assert outputs["INPUT_ID"].tolist() == [[*short, *[END_IDS[0]] * (len(long) - len(short))], long]


def test_every_end_of_the_model_stops_it(answer):
    outputs = answer("a").outputs

    assert outputs["OUT_END_ID"].tolist() == [[END_IDS[0]]]
    assert outputs["STOP_WORDS_IDS"].tolist() == [[[END_IDS[1]], [1]]]


def test_end_id_minus_one_lets_nothing_stop_it(answer):
    outputs = answer("a", END_ID=np.array([[-1]], np.int32)).outputs

    assert outputs["OUT_END_ID"].tolist() == [[-1]]
    assert outputs["STOP_WORDS_IDS"].tolist() == [[[0], [-1]]]


def test_a_stop_word_is_found_at_the_start_and_after_a_space(answer, tokenizer):
    outputs = answer("a", STOP_WORDS_DICT=np.array([[b"fox"]], object), END_ID=np.array([[-1]], np.int32)).outputs
    bare = tokenizer.encode("fox", add_special_tokens=False).ids
    spaced = tokenizer.encode(" fox", add_special_tokens=False).ids
    padding = [-1] * (len(bare + spaced) - 2)

    assert bare != spaced
    assert outputs["STOP_WORDS_IDS"].tolist() == [[bare + spaced, [len(bare), len(bare + spaced), *padding]]]


@pytest.mark.parametrize(
    ("text", "tensors", "sentence"),
    [
        ("", {}, "text_input is empty; there is nothing to continue."),
        ("a", {"REQUEST_OUTPUT_LEN": np.array([[0]], np.int32)}, "max_tokens is 0; it must be 1 or more."),
        (
            "z" * 70,
            {},
            "The prompt has 71 tokens, and the server is set up for 64 tokens of prompt and answer together.",
        ),
        (
            "a",
            {"DECODER_QUERY": np.array([[b"x"]], object)},
            "decoder_text_input is for encoder-decoder models; this one is decoder-only.",
        ),
        (
            "a",
            {"EMBEDDING_BIAS_WORDS": np.array([[b"x"]], object)},
            "embedding_bias_words has 1 items and embedding_bias_weights 0.",
        ),
    ],
)
def test_a_wrong_request_is_refused_in_one_sentence(answer, text, tensors, sentence):
    assert answer(text, **tensors).error.message() == sentence


def test_a_bug_is_not_shown_to_the_client_as_a_traceback(answer):
    error = answer("a", END_ID=np.array([["x"]], object)).error

    assert error.code == "internal"
    assert "Traceback" not in error.message()
    assert "\n" not in error.message()


@pytest.mark.parametrize(
    ("end_id", "max_tokens", "parameters", "said"),
    [
        (7, 99, '{"trtk_names_code": true}', "INVALID_ARG: The prompt has"),
        ("x", 9, '{"trtk_names_code": true}', "INTERNAL: The model stopped on this request: "),
        (7, 99, '{"trtk_names_code": false}', "The prompt has"),
        (7, 99, "", "The prompt has"),
        (7, 99, "{", "The prompt has"),
    ],
)
def test_who_reads_errors_without_a_code_is_told_it_before_the_sentence(
    preprocessing, request_of, end_id, max_tokens, parameters, said
):
    tensors = {"END_ID": np.array([[end_id]], object), "REQUEST_OUTPUT_LEN": np.full((1, 1), max_tokens, np.int32)}
    asked = request_of(QUERY=np.array([[b"a"]], object), **tensors)
    asked.named = parameters
    assert preprocessing.answer(asked).error.message().startswith(said)


def test_a_folder_without_a_tokenizer_is_named(served, tmp_path):
    module = served("preprocessing", "model")
    with pytest.raises(module.Refused, match=r"has no tokenizer\.json\."):
        module.tokenizer_in(tmp_path)


def test_as_many_tokens_as_fit_are_the_room_that_the_prompt_leaves(answer):
    as_many_as_fit = np.full((1, 1), 2**31 - 1, np.int32)
    outputs = answer("hello", REQUEST_OUTPUT_LEN=as_many_as_fit).outputs

    assert outputs["REQUEST_OUTPUT_LEN"].tolist() == [[64 - outputs["REQUEST_INPUT_LEN"].item()]]


def test_messages_are_rendered_by_the_models_template_and_get_no_second_beginning(served, answer, tokenizer, tmp_path):
    messages = np.array([[b'[{"role": "user", "content": "hello"}]']], object)
    assert answer("", MESSAGES=messages).error.message() == "This model has no chat template; send text_input."

    (tmp_path / "engine" / "chat_template.jinja").write_text("<s>{{ messages[0].content }}!")
    model = served("preprocessing", "model")
    assert model.Chat.of(tmp_path / "engine").text(messages.item().decode()) == "<s>hello!"
    answer.model.chat = model.Chat.of(tmp_path / "engine")

    assert answer("", MESSAGES=messages).outputs["INPUT_ID"].tolist() == [tokenizer.encode("hello!").ids]
    assert answer("a", MESSAGES=messages).error.message() == (
        "text_input and messages are both given; leave text_input empty to send messages."
    )
    assert answer("a", MESSAGES=np.array([[b""]], object)).outputs["INPUT_ID"].tolist() == [tokenizer.encode("a").ids]


def test_what_cannot_fit_is_refused_before_it_is_cut_into_tokens(answer):
    sizes = answer("a" * 100_000).error.message()
    assert sizes.startswith(
        "text_input has 100000 characters, which cannot fit into the 64 tokens of prompt and answer"
    )
    assert (
        answer("hello", REQUEST_OUTPUT_LEN=np.array([[64]], np.int32))
        .error.message()
        .endswith(
            " tokens and max_tokens is 64; the server is set up for 64 tokens of both together, so max_tokens can be"
            f" {64 - answer('hello').outputs['REQUEST_INPUT_LEN'].item()}."
        )
    )


def test_long_lists_of_words_and_long_words_are_refused(answer):
    many = np.array([[b"x"] * 257], object)
    assert answer("a", STOP_WORDS_DICT=many).error.message() == (
        "257 stop or bad words are given; 256 at most can be watched for."
    )
    assert answer("a", BAD_WORDS_DICT=np.array([[b"x" * 2000]], object)).error.message() == (
        "A stop or bad word has 2000 characters; it may have 1024."
    )
