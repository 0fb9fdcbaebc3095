"""What the CPU engine is asked for, and what it refuses."""

import numpy as np
import pytest


@pytest.fixture
def asked(served):
    return served("tensorrt_llm", "asked")


def tensors(**more):
    base = {
        "input_ids": np.array([[5, 6, 7, 0]], np.int32),
        "input_lengths": np.array([3], np.int32),
        "request_output_len": np.array([8], np.int32),
    }
    return base | more


def rows(asked, **more):
    return asked.rows_of(tensors(**more), asked.Limits(max_seq_len=16, excludes_input=True, max_sequences=4))


def test_padding_is_cut_off_and_greedy_is_the_default(asked):
    (row,) = rows(asked)

    assert row.prompt.tolist() == [5, 6, 7]
    assert (row.max_tokens, row.end_id, row.is_streaming, row.includes_input) == (8, -1, False, False)
    assert "do_sample" not in row.sampling


def test_each_row_of_a_batch_has_its_own_values(asked):
    more = {
        "input_ids": np.array([[1, 2], [3, 4]], np.int32),
        "input_lengths": np.array([2, 1], np.int32),
        "request_output_len": np.array([[4], [5]], np.int32),
        "end_id": np.array([[9], [-1]], np.int32),
    }
    first, second = rows(asked, **more)

    assert (first.prompt.tolist(), first.max_tokens, first.end_id, first.batch_index) == ([1, 2], 4, 9, 0)
    assert (second.prompt.tolist(), second.max_tokens, second.end_id, second.batch_index) == ([3], 5, -1, 1)


def test_word_lists_are_read_up_to_their_padding(asked):
    table = np.array([[[1, 2, 3, 0], [2, 3, -1, -1]]], np.int32)
    (row,) = rows(asked, stop_words_list=table, bad_words_list=table[:, :, 3:])

    assert row.stop_words == [[1, 2], [3]]
    assert row.bad_words == []


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"runtime_top_k": 40}, {"top_k": 40, "temperature": 1.0}),
        ({"runtime_top_p": 0.5, "temperature": 0.5}, {"top_p": 0.5, "temperature": 0.5}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 0.0, "runtime_top_k": 40}, None),
        ({"temperature": 0.5, "runtime_top_k": 1}, None),
        ({"temperature": 1e-30}, None),
    ],
)
def test_chance_is_used_when_it_is_asked_for(asked, more, expected):
    (row,) = rows(asked, **{name: np.array([value]) for name, value in more.items()})
    chosen = {name: row.sampling[name] for name in ("top_k", "top_p", "temperature") if name in row.sampling}

    assert (chosen if row.sampling.get("do_sample") else None) == expected


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"beam_width": np.array([4])}, "beam_width = 4 is not supported by the CPU engine; it can do 1."),
        ({"lora_task_id": np.array([4])}, "lora_task_id is not supported by the CPU engine; leave it out."),
        (
            {"return_context_logits": np.array([True])},
            "return_context_logits = True is not supported by the CPU engine; it can do False.",
        ),
        (
            {"bad_words_list": np.array([[[3], [1]]]), "guided_decoding_guide_type": np.array([[b"json"]], object)},
            "bad_words and guided decoding cannot be used together; leave one out.",
        ),
        ({"runtime_top_p": np.array([1.5])}, "top_p is 1.5; it must be between 0 and 1."),
        ({"runtime_top_p": np.array([np.nan])}, "top_p is nan; it must be between 0 and 1."),
        ({"temperature": np.array([np.nan])}, "temperature is nan; it must be 0 or more."),
        ({"temperature": np.array([np.inf])}, "temperature is inf; it must be 0 or more."),
        ({"runtime_top_k": np.array([-1])}, "top_k is -1; it must be 0 or more."),
        ({"repetition_penalty": np.array([0.0])}, "repetition_penalty is 0.0; it must be above 0."),
        ({"presence_penalty": np.array([np.nan])}, "presence_penalty is nan; it must be between -2 and 2."),
        ({"frequency_penalty": np.array([3.0])}, "frequency_penalty is 3.0; it must be between -2 and 2."),
        ({"num_return_sequences": np.array([5])}, "num_return_sequences is 5; it may be 1 to 4."),
        ({"embedding_bias": np.array([[0, 1.5]])}, "embedding_bias is not supported by the CPU engine; leave it out."),
        (
            {"guided_decoding_guide_type": np.array([[b"xml"]], object)},
            "guided_decoding_guide_type is 'xml'; it must be one of json, json_schema, regex, ebnf_grammar.",
        ),
        (
            {"guided_decoding_guide_type": np.array([[b"regex"]], object)},
            "guided_decoding_guide is empty, and regex needs one.",
        ),
        (
            {"guided_decoding_guide": np.array([[b"\xff"]], object)},
            "guided_decoding_guide is not UTF-8.",
        ),
        ({"min_tokens": np.array([9])}, "min_tokens is 9; it must be between 0 and 8."),
        ({"input_lengths": np.array([5])}, "input_lengths is 5 for 4 tokens in input_ids."),
        ({"request_output_len": np.array([0])}, "request_output_len is 0; it must be 1 or more."),
        (
            {"request_output_len": np.array([14])},
            "The prompt has 3 tokens and 14 more are asked for; together they may be 16.",
        ),
    ],
)  # fmt: skip
def test_what_the_engine_cannot_do_is_refused_in_a_sentence(asked, more, sentence):
    with pytest.raises(asked.Refused) as refused:
        rows(asked, **more)

    assert str(refused.value) == sentence


def test_neutral_values_and_empty_tensors_are_no_request(asked):
    more = {
        "beam_width": np.array([1]),
        "embedding_bias": np.zeros((1, 0), np.float32),
        "prompt_table_extra_ids": np.zeros((1, 0), np.uint64),
        "bad_words_list": np.array([[[0], [-1]]], np.int32),
        "decoder_input_ids": np.array([[2]], np.int32),
        "lora_task_id": np.array([0], np.uint64),
        "lora_weights": np.zeros((1, 1, 4), np.float16),
        "prompt_embedding_table": np.zeros((1, 1, 4), np.float16),
        "guided_decoding_guide_type": np.array([[b""]], object),
        "guided_decoding_guide": np.array([[b""]], object),
    }
    (row,) = rows(asked, **more)

    assert (row.bad_words, row.guide, row.has_log_probs) == ([], None, False)


def test_each_of_several_answers_has_a_seed_of_its_own(asked):
    more = {
        "num_return_sequences": np.array([3]),
        "temperature": np.array([1.0]),
        "seed": np.array([2**64 - 1], np.uint64),
    }

    made = rows(asked, **more)

    assert [row.sequence_index for row in made] == [0, 1, 2]
    assert [row.sampling["rng_seed"] for row in made] == [2**64 - 1, 0, 1]


def test_every_input_of_the_table_is_honoured_or_refused(asked):
    """No input may be passed over in silence; these few mean something only with beams or to an encoder-decoder."""
    from toolkit.repository import tensors as tables
    from toolkit.repository.layouts import inflight_batcher

    types = {"$logits": "FP32", "$encoder": "FP16", "$prompt_table": "FP16"}
    table = tables.tables(inflight_batcher.TABLES, types)["tensorrt_llm"]
    honoured = {
        "input_ids", "input_lengths", "request_output_len", "end_id", "stop_words_list", "bad_words_list",
        "temperature", "runtime_top_k", "runtime_top_p", "repetition_penalty", "min_tokens", "presence_penalty",
        "frequency_penalty", "seed", "return_perf_metrics", "return_num_input_tokens", "return_num_output_tokens",
        "exclude_input_in_output", "stop", "streaming", "decoder_input_ids", "num_return_sequences", "return_log_probs",
        "guided_decoding_guide_type", "guided_decoding_guide",
    }  # fmt: skip
    without_meaning = {"pad_id", "decoder_input_lengths", "len_penalty", "early_stopping", "beam_search_diversity_rate"}
    known = honoured | without_meaning | set(asked.ABSENT) | set(asked.NEUTRAL)

    assert {tensor.name for tensor in table.inputs} == known


@pytest.mark.parametrize(
    ("name", "value", "token"),
    [
        ("input_ids", [[5, 100, 7, 0]], 100),
        ("input_ids", [[5, -7, 7, 0]], -7),
        ("end_id", [[2_000_000_000]], 2_000_000_000),
        ("stop_words_list", [[[-3, 5], [2, -1]]], -3),
        ("bad_words_list", [[[4, 100], [2, -1]]], 100),
    ],
)
def test_a_number_that_is_no_token_does_not_reach_the_engine(asked, name, value, token):
    limits = asked.Limits(max_seq_len=16, excludes_input=True, vocabulary=100)
    with pytest.raises(asked.Refused, match=f"{name} has the token {token}; this model's are 0 to 99"):
        asked.rows_of(tensors(**{name: np.array(value, np.int32)}), limits)


def test_padding_may_be_any_number(asked):
    limits = asked.Limits(max_seq_len=16, excludes_input=True, vocabulary=100)
    (row,) = asked.rows_of(tensors(input_ids=np.array([[5, 6, 7, -1]], np.int32)), limits)
    assert row.prompt.tolist() == [5, 6, 7]
