"""Stop strings are cut wherever they come, in whatever pieces."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from toolkit.gateway.stops import StopCutter

TEXT = st.text(alphabet="ab é", max_size=30)
STOPS = st.lists(st.text(alphabet="ab é", min_size=1, max_size=4), max_size=4)


def shown(pieces, stops):
    cutter = StopCutter(stops)
    text = "".join(cutter.feed(piece) for piece in pieces)
    return text if cutter.is_done else text + cutter.rest()


def expected(text, stops):
    """Read letter by letter, as nobody would write it: the first stop string that is complete ends the text."""
    for end in range(len(text) + 1):
        ended = [stop for stop in stops if text[:end].endswith(stop)]
        if ended:
            return text[: end - max(map(len, ended))]
    return text


@given(TEXT, STOPS, st.lists(st.integers(0, 30), max_size=6))
def test_any_pieces_give_what_reading_letter_by_letter_gives(text, stops, cuts):
    places = [0, *sorted(cut for cut in cuts if cut <= len(text)), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(places)]

    assert shown(pieces, stops) == expected(text, stops)


def test_nothing_is_kept_back_that_no_stop_string_begins_with():
    cutter = StopCutter(["\n\n", "User:"])

    assert [cutter.feed(piece) for piece in ("Paris.", "\n", "The Us", "a", "\nUs", "er: x")] == [
        "Paris.",
        "",
        "\nThe ",
        "Usa",
        "\n",
        "",
    ]
    assert cutter.is_done


def test_without_stop_strings_text_goes_through_at_once():
    cutter = StopCutter([])

    assert (cutter.feed("a"), cutter.rest(), cutter.is_done) == ("a", "", False)
