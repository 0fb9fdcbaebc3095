"""Any build has a legal name, the same every time, and no two builds have the same."""

import pytest

from toolkit.deploy import names

LONG = "meta-llama/Llama-3.1-405B-Instruct-with-a-name-that-nobody-would-type-twice-a4500-int4"


@pytest.mark.parametrize("text", ["demo-int4", "Llama_3.1", LONG, LONG + "x", "3b", "-", "Ünïcode", "a" * 41, ""])
def test_any_model_has_a_legal_name(text):
    name = names.name_of(text)
    assert names.LABEL.fullmatch(name)
    assert len(name) <= names.MAX_NAME
    assert names.name_of(name) == name


def test_names_that_had_to_change_stay_apart():
    texts = ["llama-3.1", "llama-3-1", "llama_3-1", "LLAMA-3-1", "llama 3 1", LONG, LONG + "x", LONG[:-1]]
    assert len({names.name_of(text) for text in texts}) == len(texts)
    assert names.name_of("llama-3-1") == "llama-3-1"


def test_labels_hold_what_no_label_may():
    for text in ("26.07", "a b", "x" * 200, "é", "-a-", ""):
        value = names.value_of(text)
        assert names.VALUE.fullmatch(value)
        assert len(value) <= names.MAX_LABEL
    assert names.value_of("x" * 200) != names.value_of("x" * 201)


def test_parts_of_a_name_are_legal_too():
    assert names.part_of("demo", "files") == "demo-files"
    assert len(names.part_of("a" * 40, "b" * 40)) <= names.MAX_LABEL
    assert names.part_of("a" * 40, "b" * 40) != names.part_of("a" * 40, "b" * 41)
