"""How deep JSON nests: held against what JSON objects are built of, and cut into any pieces."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.gateway import nesting
from toolkit.gateway.nesting import MAX_DEPTH, Nesting

TEXTS = st.text(alphabet='a"\\[]{}é\n', max_size=8)
DOCUMENTS = st.recursive(
    st.one_of(TEXTS, st.integers(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(TEXTS, inner, max_size=4)),
    max_leaves=30,
)


def depth(document):
    if isinstance(document, dict):
        return 1 + max(map(depth, document.values()), default=0)
    return 1 + max(map(depth, document), default=0) if isinstance(document, list) else 0


def is_too_deep(text, cuts=()):
    counted, ends = Nesting(), [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[start:end] for start, end in itertools.pairwise(ends)]
    return any(counted.is_too_deep(piece) for piece in pieces)


@settings(max_examples=300)
@given(DOCUMENTS, st.lists(st.integers(0, 200), max_size=5), st.booleans())
def test_a_document_is_too_deep_exactly_from_its_depth_on(document, cuts, is_ascii):
    text = json.dumps(document, ensure_ascii=is_ascii).encode()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(nesting, "MAX_DEPTH", depth(document))
        assert not is_too_deep(text, cuts)
        patched.setattr(nesting, "MAX_DEPTH", depth(document) - 1)
        assert is_too_deep(text, cuts) or depth(document) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"[" * MAX_DEPTH, False),
        (b"[" * (MAX_DEPTH + 1), True),
        (b'{"a":' * (MAX_DEPTH + 1), True),
        (b"[]" * 100_000, False),  # wide is not deep
        (b'{"text_input": "' + b"[" * 100_000 + b'"}', False),  # nor is a text of brackets
        (b'"\\"' + b"[" * 100_000, False),  # nor one after a quote that is text
        (b'"\\\\"' + b"[" * 100_000, True),
        (b"]" * 10 + b"[" * (MAX_DEPTH + 10), False),  # a reader has stopped at the first of them
    ],
)
def test_what_counts_as_deep(text, expected):
    assert is_too_deep(text) == expected
    assert is_too_deep(text, range(len(text))) == expected
