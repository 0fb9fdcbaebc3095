"""Tokens that a draft model proposes: the answer is the engine's own, in fewer of its steps."""

import numpy as np
import pytest

END = 2
PROMPT = [5, 6, 7]


class Engines:
    """Two models with a next token for each text: the draft is right as often as it is told."""

    def __init__(self, *, is_right=lambda _: True, ends_at=10_000):
        self.is_right, self.ends_at = is_right, ends_at
        self.steps = 0

    def next(self, text):
        return END if len(text) >= self.ends_at else 10 + (7 * len(text) + text[-1]) % 89

    def propose(self, text):
        return self.next(text) if self.is_right(len(text)) else 9

    def __call__(self, is_draft, inputs):
        assert inputs["exclude_input_in_output"].all()
        assert inputs["input_lengths"].tolist() == [[inputs["input_ids"].shape[1]]]
        text, made = inputs["input_ids"][0].tolist(), []
        limit = int(inputs["request_output_len"].max())
        if is_draft:
            while len(made) < limit and (not made or made[-1] != END):
                made.append(self.propose([*text, *made]))
        else:
            self.steps += 1
            for proposed in [*inputs.get("draft_input_ids", np.empty((1, 0), int))[0].tolist(), None][:limit]:
                made.append(self.next([*text, *made]))
                if made[-1] != proposed or made[-1] == END:
                    break
        tokens = np.array([[made]], np.int32)
        return {"output_ids": tokens, "sequence_length": np.array([[len(made)]], np.int32)}

    def alone(self, count):
        text = list(PROMPT)
        while len(text) - len(PROMPT) < count and text[-1] != END:
            text.append(self.next(text))
        return text[len(PROMPT) :]


@pytest.fixture
def drafts(served):
    return served("tensorrt_llm_bls", "drafts")


def inputs(count=20, **more):
    made = {"input_ids": [PROMPT], "request_output_len": [[count]], "end_id": [[END]]}
    return {name: np.array(value, np.int32) for name, value in {**made, **more}.items()}


def answer(drafts, engines, asked, per_step=4):
    made = drafts.Drafted(asked, per_step, has_logits=False)
    made.make(engines, lambda: True)
    return made


@pytest.mark.parametrize("per_step", [1, 3, 4, 50])
@pytest.mark.parametrize("every", [1, 2, 5, 1000])
@pytest.mark.parametrize("ends_at", [4, 12, 10_000])
def test_the_answer_is_the_engine_s_own_however_often_the_draft_is_right(drafts, per_step, every, ends_at):
    engines = Engines(is_right=lambda length: length % every == 0, ends_at=ends_at)

    assert answer(drafts, engines, inputs(), per_step).tokens == engines.alone(20)


def test_a_draft_that_is_right_saves_steps_and_one_that_is_wrong_costs_none(drafts):
    right, wrong = Engines(), Engines(is_right=lambda _: False)
    answer(drafts, right, inputs())
    answer(drafts, wrong, inputs())

    assert (right.steps, wrong.steps) == (4, 20)  # five tokens a step, and one


def test_a_stop_word_ends_the_answer(drafts):
    engines = Engines()
    word = engines.alone(20)[6:8]
    made = answer(drafts, engines, inputs(stop_words_list=[[[99, *word], [1, 3, -1]]]), per_step=1)

    assert made.tokens == engines.alone(8)


def test_a_client_that_leaves_ends_the_work(drafts):
    engines, made = Engines(), drafts.Drafted(inputs(), 4, has_logits=False)
    made.make(engines, lambda: engines.steps < 2)

    assert engines.steps == 2


def test_logits_go_from_the_draft_to_the_engine_where_they_are_asked_for(drafts):
    seen = []

    def call(is_draft, asked):
        seen.append(asked)
        found = Engines()(is_draft, asked)
        length = found["output_ids"].shape[2]
        return found | ({"generation_logits": np.ones((1, 1, length, 8), np.float32)} if is_draft else {})

    made = drafts.Drafted(inputs(count=5), 4, has_logits=True)
    made.make(call, lambda: True)

    assert seen[0]["return_generation_logits"].all()
    assert (seen[1]["draft_input_ids"].shape, seen[1]["draft_logits"].shape) == ((1, 4), (1, 4, 8))


def test_counts_are_of_the_whole_and_the_prompt_is_shown_where_it_is_asked_for(drafts):
    made = answer(drafts, Engines(), inputs(count=5))
    made.last["num_output_tokens"] = np.array([[1]], np.int32)

    assert made.others({"num_output_tokens"}) == {"num_output_tokens": np.array([[5]], np.int32)}
    assert made.shown({}).tolist() == [[made.tokens]]
    assert made.shown({"exclude_input_in_output": np.array([[False]])}).tolist() == [[[*PROMPT, *made.tokens]]]


@pytest.mark.parametrize(
    ("asked", "has_draft", "sentence"),
    [
        ({"num_draft_tokens": [[4]]}, False, "num_draft_tokens is not supported: this repository has no draft model."),
        ({"num_draft_tokens": [[-1]]}, True, "num_draft_tokens is -1; give 1 or more, or leave it out."),
        ({"num_draft_tokens": [[4]], "stream": [[1]]}, True, "stream does not go with num_draft_tokens."),
        (
            {"num_draft_tokens": [[4]], "beam_width": [[2]]},
            True,
            "beam_width 2 does not go with num_draft_tokens: one answer at a time.",
        ),
    ],
)
def test_what_does_not_go_with_a_draft_is_refused_in_a_sentence(drafts, asked, has_draft, sentence):
    with pytest.raises(drafts.Refused) as refused:
        drafts.number_of({name: np.array(value) for name, value in asked.items()}, has_draft=has_draft)

    assert str(refused.value) == sentence


def test_without_draft_tokens_nothing_changes(drafts):
    assert drafts.number_of({"num_draft_tokens": np.array([[0]])}, has_draft=False) == 0
    assert drafts.number_of({}, has_draft=True) == 0
