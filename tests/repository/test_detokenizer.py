"""The pieces of a stream, each decoded alone, are together the text of all tokens."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toolkit import templating

SOURCE = templating.directory() / "inflight_batcher" / "shared" / "detokenizer.py"


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


detokenizer = loaded(SOURCE)
made = loaded(Path(__file__).parent / "tokenizers_made.py")
TOKENIZERS = {"byte-level": made.byte_level(), "sentencepiece": made.sentencepiece()}
DECODERS = {name: detokenizer.Detokenizer(tokenizer) for name, tokenizer in TOKENIZERS.items()}
CLASSES = {name: decoder.classes() for name, decoder in DECODERS.items()}


def streamed(name, tokens, *, every):
    """Send what is certain after every EVERY tokens, as the engine does, and the rest at the end."""
    decoder = DECODERS[name]
    boundary = detokenizer.Boundary(decoder, CLASSES[name])
    pieces, sent = [], 0
    for token in tokens:
        boundary.add(token)
        if boundary.certain - sent >= every:
            pieces.append(decoder.text(tokens[sent : boundary.certain]))
            sent = boundary.certain
    return [*pieces, decoder.text(tokens[sent:])]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=200)
@given(text=st.text(max_size=40), every=st.integers(1, 5))
@example(text="你好世界 🎉🎊👩‍👩‍👧", every=1)
@example(text=" \n  leading", every=1)
def test_the_pieces_of_any_text_add_up_to_it(name, text, every):
    tokens = TOKENIZERS[name].encode(text, add_special_tokens=False).ids

    assert "".join(streamed(name, tokens, every=every)) == DECODERS[name].text(tokens)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=300)
@given(data=st.data(), every=st.integers(1, 5))
def test_the_pieces_of_any_tokens_add_up_even_where_they_are_no_text(name, data, every):
    size = TOKENIZERS[name].get_vocab_size()
    tokens = data.draw(st.lists(st.integers(0, size - 1), max_size=30))

    assert "".join(streamed(name, tokens, every=every)) == DECODERS[name].text(tokens)


def test_a_character_of_several_tokens_leaves_in_one_piece():
    tokens = TOKENIZERS["byte-level"].encode("你!", add_special_tokens=False).ids

    assert len(tokens) == 4
    assert [piece for piece in streamed("byte-level", tokens, every=1) if piece] == ["你", "!"]


def test_a_leading_space_survives_where_the_tokenizer_alone_would_strip_it():
    tokens = TOKENIZERS["sentencepiece"].encode("", add_special_tokens=False).ids
    hello = TOKENIZERS["sentencepiece"].token_to_id("▁hello")

    assert tokens == []
    assert TOKENIZERS["sentencepiece"].decode([hello]) == "hello"
    assert DECODERS["sentencepiece"].text([hello]) == " hello"


def test_special_tokens_are_not_shown_and_hold_nothing_back():
    end = TOKENIZERS["byte-level"].token_to_id("</s>")
    boundary = detokenizer.Boundary(DECODERS["byte-level"], CLASSES["byte-level"])
    boundary.add(end)

    assert boundary.certain == 1
    assert DECODERS["byte-level"].text([end]) == ""
