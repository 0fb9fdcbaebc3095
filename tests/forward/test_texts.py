"""Calibration text comes from text, JSONL and Parquet files; what holds none is named with its row."""

import gzip
import json
import sys

import pytest
from tokenizers import Tokenizer

from toolkit.errors import BuildError, MissingError, UsageError
from toolkit.forward.calibration import from_text
from toolkit.forward.texts import documents
from toolkit.specs import CalibrationSpec

ROWS = [{"text": "First row."}, {"text": "  \n"}, {"text": "Third\nrow."}]
CHAT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]
OLD_CHAT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_a_text_file_is_one_document(tmp_path):
    (tmp_path / "a.txt").write_text("One.\n\nTwo.\n")

    assert list(documents(tmp_path / "a.txt")) == ["One.\n\nTwo.\n"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json.gz"])
def test_a_json_line_is_a_document_and_blank_ones_are_none(tmp_path, name):
    content = (lines(ROWS) + "\n").encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)

    assert list(documents(tmp_path / name)) == ["First row.", "Third\nrow."]


@pytest.mark.parametrize(
    ("row", "column"),
    [({"messages": CHAT}, ""), ({"conversations": OLD_CHAT}, ""), ({"text": "other", "turns": OLD_CHAT}, "turns")],
)
def test_a_conversation_goes_through_the_chat_template(tmp_path, row, column):
    (tmp_path / "a.jsonl").write_text(lines([row]))

    def chat(messages):
        return "".join(f"<{each['role']}>{each['content']}" for each in messages)

    assert list(documents(tmp_path / "a.jsonl", column=column, chat=chat)) == ["<user>Hi<assistant>Hello!"]


def test_a_parquet_file_is_read_by_its_column(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pyarrow.table({"id": [1, 2, 3], "text": [row["text"] for row in ROWS], "other": ["a", "b", "c"]})
    parquet.write_table(table, tmp_path / "a.parquet")

    assert list(documents(tmp_path / "a.parquet")) == ["First row.", "Third\nrow."]
    assert list(documents(tmp_path / "a.parquet", column="other")) == ["a", "b", "c"]
    with pytest.raises(UsageError, match=r"a.parquet has no 'body'; it has id, other, text."):
        list(documents(tmp_path / "a.parquet", column="body"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(UsageError, match="is no whole Parquet file"):
        list(documents(tmp_path / "a.parquet"))


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)

    with pytest.raises(MissingError) as caught:
        list(documents(tmp_path / "a.parquet"))

    assert str(caught.value).startswith("a.parquet is a Parquet file, which needs pyarrow to be read: ")
    assert caught.value.hint == "pip install 'pyarrow<26'"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"text": "a"}\n{"text": ', "{path} line 2 is not JSON: "),
        (b'{"text": "a"}\n{"body": "b"}\n', "{path} row 2 has no 'text' or 'content' or 'messages' or 'conversations'"),
        (b"[1, 2]\n", "{path} row 1 has no 'text'"),
        (b'{"text": 7}\n', "{path} row 1 holds neither text nor messages in 'text'."),
        (b'{"messages": [{"role": "user"}, 3]}\n', "{path} row 1 holds neither text nor messages in 'messages'."),
        (b"\xff\xfe{}", "{path} is damaged or not UTF-8: "),
    ],
)
def test_a_row_without_text_is_named(tmp_path, content, message):
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)

    with pytest.raises(UsageError) as caught:
        list(documents(path))

    assert str(caught.value).startswith(message.format(path=path))


@pytest.mark.parametrize(
    ("name", "content", "is_blank"),
    [
        ("a.txt", "Hello there. " * 20, False),
        ("a.txt", " \n\t\n", True),
        ("a.txt", "", True),
        ("a.jsonl", lines([{"text": "Hello there."}] * 20), False),
        ("a.jsonl", lines([{"text": " "}] * 9), True),
    ],
)
def test_too_little_text_is_said_with_the_numbers(llama, tmp_path, name, content, is_blank):
    (tmp_path / name).write_text(content)
    asked = CalibrationSpec(source=str(tmp_path / name), samples=64, length=16)
    texts = (
        []
        if is_blank
        else [json.loads(line)["text"] for line in content.splitlines()]
        if "jsonl" in name
        else [content]
    )
    found = len(Tokenizer.from_file(str(llama[0] / "tokenizer.json")).encode("\n".join(texts)).ids)

    with pytest.raises(UsageError) as caught:
        from_text(asked, llama[0], 320)

    assert str(caught.value) == f"{tmp_path / name} has {found} tokens; 64 samples of 16 need 1024."
    assert caught.value.hint == (
        "Give more text." if is_blank else f"Give more text, or --calib-samples {found // 16}."
    )


def test_ids_beyond_the_vocabulary_are_named(llama, tmp_path):
    (tmp_path / "a.txt").write_text("Hello there. " * 20)
    ids = Tokenizer.from_file(str(llama[0] / "tokenizer.json")).encode("Hello there. " * 20).ids[:16]

    with pytest.raises(BuildError) as caught:
        from_text(CalibrationSpec(source=str(tmp_path / "a.txt"), samples=1, length=16), llama[0], 50)

    assert str(caught.value) == f"The tokenizer makes the id {max(ids)}, beyond the model's vocabulary of 50."


def test_what_is_not_needed_is_not_read(llama, tmp_path):
    (tmp_path / "a.jsonl").write_text(lines([{"text": "word " * 400}] * 3) + "this is no JSON\n")
    asked = CalibrationSpec(source=str(tmp_path / "a.jsonl"), samples=2, length=16)

    assert from_text(asked, llama[0], 320).shape == (2, 16)
