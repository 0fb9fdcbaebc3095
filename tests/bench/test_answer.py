import pytest

from toolkit.bench.answer import Answer


def answer(*responses: tuple[float, str, int | None]) -> Answer:
    made = Answer()
    for now, text, count in responses:
        made.add(now, has_text=bool(text), count=count)
    return made


@pytest.mark.parametrize(
    ("counts", "asked", "tokens"),
    [
        ([1, 2, 3, 4], 64, (4, 1)),
        ([4, 8, 12, 16], 16, (16, 4)),
        ([1, 2, 3, 3], 64, (3, 1)),  # the last response only ends a character
        ([1, 1, 1, 1], 64, (4, 1)),
        ([4, 4, 4, 2], 14, (14, 4)),
        ([4, 4, 4, 4], 16, (16, 4)),
        ([4, 4], 4, (4, 4)),  # eight would be more than was asked for
        ([16], 16, (16, 16)),
    ],
)
def test_running_totals_and_counts_per_response_are_told_apart(counts, asked, tokens):
    made = answer(*((index, "text", count) for index, count in enumerate(counts)))
    assert made.tokens(asked) == (*tokens, "server")


def test_tokens_without_text_come_before_the_first_text():
    made = answer((1.0, "", 1), (2.0, "", 2), (3.0, "é", 3), (4.0, "a", 4), (5.0, "", None))
    assert (made.first, made.last, made.chunks, made.tokens(64)) == (3.0, 4.0, 2, (4, 3, "server"))


def test_without_counts_each_response_with_text_is_a_token():
    assert answer((1.0, "a", None), (2.0, "", None), (3.0, "b", None)).tokens(64) == (2, 1, "chunks")


def test_a_count_on_the_last_response_alone_is_the_total():
    assert answer((1.0, "a", None), (2.0, "b", None), (3.0, "c", 12)).tokens(64) == (12, 1, "server")


def test_an_answer_that_never_came_has_no_tokens():
    assert Answer().tokens(64) == (0, 0, "chunks")
