"""One sequence of the CPU engine: where it ends, what it must not say, what is sent; the pipeline is scripted."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openvino_genai
import pytest

spec = importlib.util.spec_from_file_location("tokenizers_made", Path(__file__).parent / "tokenizers_made.py")
made = importlib.util.module_from_spec(spec)
spec.loader.exec_module(made)
TOKENIZER = made.byte_level()
END = TOKENIZER.token_to_id("</s>")
REASON = openvino_genai.GenerationFinishReason


def ids(text):
    return TOKENIZER.encode(text, add_special_tokens=False).ids


class Handle:
    """A pipeline's handle that gives one token at a time, then says why it ends."""

    def __init__(self, tokens, reason=REASON.LENGTH):
        self.left, self.reason, self.is_stopped = list(tokens), reason, False

    def can_read(self):
        return bool(self.left) and not self.is_stopped

    def read(self):
        token = self.left.pop(0)
        reason = REASON.NONE if self.left else self.reason
        return {0: SimpleNamespace(generated_ids=[token], generated_log_probs=[-0.25], finish_reason=reason)}

    def get_status(self):
        return openvino_genai.GenerationStatus.RUNNING

    def stop(self):
        self.is_stopped = True


class Reply:
    def __init__(self):
        self.sent = []

    def send(self, _, tokens, *, first, is_last):
        self.sent.append((tokens, first, is_last))


@pytest.fixture
def run(served):
    """Return a function that runs a row over scripted handles: (row, banned tokens of each begin, what was sent)."""
    module, asked, detokenizer = (served("tensorrt_llm", name) for name in ("row", "asked", "detokenizer"))
    decoder = detokenizer.Detokenizer(TOKENIZER)
    classes = decoder.classes()

    def over(*handles, **fields):
        values = {"end_id": END, "stop_words": [], "is_streaming": True, "includes_input": False, "max_tokens": 99}
        one = asked.Asked(prompt=np.array([3], np.int64), **values | fields)
        reply, begun, handles = Reply(), [], list(handles)
        row = module.Row(reply, one, module.Words(one, decoder, classes), detokenizer.Boundary(decoder, classes))

        def begin(_, banned):
            begun.append(banned)
            return handles.pop(0)

        row.start(begin)
        while not row.is_done:
            row.collect()
        row.send(1)
        return row, begun, reply.sent

    return over


def test_an_end_is_not_part_of_the_answer_and_a_limit_is_said(run):
    row, _, sent = run(Handle([*ids("fox"), END], REASON.STOP))
    assert (TOKENIZER.decode(row.tokens), row.finish_reason) == ("fox", "stop")
    assert sent == [(ids("fox"), 0, True)]

    row, _, _ = run(Handle(ids("fox")))
    assert (row.tokens, row.finish_reason) == (ids("fox"), "length")


def test_a_stop_word_without_a_text_is_an_end_that_the_pipeline_watches_for(run):
    row, _, _ = run(Handle([*ids("fox"), END], REASON.STOP), end_id=-1, stop_words=[[END]])

    assert (row.tokens, row.words.ends, row.words.stops) == (ids("fox"), {END}, [])


def test_a_stop_word_is_found_however_it_is_cut_into_tokens(run):
    letters = [token for letter in "brown" for token in ids(letter)]
    assert letters != ids("brown")
    handle = Handle([*ids("a "), *letters, *ids(" never")])

    row, _, _ = run(handle, stop_words=[ids("brown"), ids(" brown")])

    assert (TOKENIZER.decode(row.tokens), row.finish_reason, handle.is_stopped) == ("a brown", "stop", True)


def test_a_bad_word_is_taken_back_and_its_last_token_forbidden_for_one_step(run):
    the, fox, dog = ids("the"), ids(" fox"), ids(" dog")
    assert len(fox) > 1
    first, second = Handle([*the, *fox, *dog]), Handle([*dog, END], REASON.STOP)

    row, begun, _ = run(first, second, bad_words=[fox, [7, 8]])

    assert begun == [set(), {fox[-1]}]
    assert (row.tokens, row.finish_reason) == ([*the, *fox[:-1], *dog], "stop")
    assert first.is_stopped


def test_a_token_that_was_forbidden_for_one_step_may_come_later(run):
    word = ids(" fox")
    allowed = [word[-1], *ids("the")]
    handles = Handle(word), Handle([*ids("a"), word[-1]], REASON.STOP), Handle([*ids("the"), END], REASON.STOP)

    row, begun, _ = run(*handles, bad_words=[word])

    assert begun == [set(), {word[-1]}, set()]
    assert row.tokens == [*word[:-1], *ids("a"), *allowed]


def test_log_probabilities_are_kept_for_the_tokens_of_the_answer_alone(run):
    row, _, _ = run(Handle([*ids("fox"), END], REASON.STOP), has_log_probs=True)

    assert row.log_probs == [-0.25] * len(ids("fox"))
    assert run(Handle(ids("fox")))[0].log_probs == []


def test_a_sequence_that_finds_no_room_when_it_begins_anew_is_refused_not_waited_for(run, served):
    class Ignored(Handle):
        def get_status(self):
            return openvino_genai.GenerationStatus.IGNORED

    first, second = ids("fox")[0], ids(" dog")[0]
    with pytest.raises(served("tensorrt_llm", "served").Refused, match="no room"):
        run(Handle([first, second]), Ignored([]), bad_words=[[second]])
