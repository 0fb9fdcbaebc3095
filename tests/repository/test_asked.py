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
    return asked.rows_of(tensors(**more), asked.Limits(max_seq_len=16, excludes_input=True))


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

    assert (first.prompt.tolist(), first.max_tokens, first.stop_token_ids) == ([1, 2], 4, {9})
    assert (second.prompt.tolist(), second.max_tokens, second.stop_token_ids) == ([3], 5, set())


def test_word_lists_are_read_up_to_their_padding(asked):
    table = np.array([[[1, 2, 3, 0], [2, 3, -1, -1]]], np.int32)
    (row,) = rows(asked, stop_words_list=table, end_id=np.array([9], np.int32))

    assert row.stop_words == [[1, 2], [3]]
    assert row.stop_token_ids == {3, 9}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"runtime_top_k": 40}, {"top_k": 40, "temperature": 1.0}),
        ({"runtime_top_p": 0.5, "temperature": 0.5}, {"top_p": 0.5, "temperature": 0.5}),
        ({"temperature": 0.5}, {"temperature": 0.5}),
        ({"temperature": 0.0, "runtime_top_k": 40}, None),
        ({"temperature": 0.5, "runtime_top_k": 1}, None),
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
            {"return_log_probs": np.array([True])},
            "return_log_probs = True is not supported by the CPU engine; it can do False.",
        ),
        ({"bad_words_list": np.array([[[3], [1]]])}, "bad_words is not supported by the CPU engine; leave it out."),
        ({"runtime_top_p": np.array([1.5])}, "top_p is 1.5; it must be between 0 and 1."),
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
    }

    assert len(rows(asked, **more)) == 1


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
        "exclude_input_in_output", "stop", "streaming", "decoder_input_ids",
    }  # fmt: skip
    without_meaning = {"pad_id", "decoder_input_lengths", "len_penalty", "early_stopping", "beam_search_diversity_rate"}
    known = honoured | without_meaning | set(asked.ABSENT) | set(asked.NEUTRAL)

    assert {tensor.name for tensor in table.inputs} == known
