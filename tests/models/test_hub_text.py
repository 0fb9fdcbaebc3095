"""A hub data set becomes calibration text pinned to a commit; the hub is a stand-in on loopback."""

import json
import subprocess
import sys

import pytest

from tests.models.hub_stand_in import Hub, Repository, start
from tests.models.test_hub import environment_of
from toolkit.errors import UsageError
from toolkit.models.hub_text import HubText, chosen, parse

COMMIT = "89abcdef0123456789abcdef0123456789abcdef"


def rows(word, count=40):
    return "".join(json.dumps({"text": f"{word} {i}", "title": word.upper()}) + "\n" for i in range(count)).encode()


FILES = {
    "README.md": b"# Texts",
    "data/train-00000-of-00002.jsonl": rows("first"),
    "data/train-00001-of-00002.jsonl": rows("second"),
    "data/test-00000-of-00001.jsonl": rows("tested"),
    "texts.py": b"raise SystemExit('remote code ran')",
}
PROGRAM = """
import json, sys
from pathlib import Path
from toolkit.errors import TrtkError
from toolkit.forward.texts import documents
from toolkit.models import hub_text
try:
    source = hub_text.pinned(sys.argv[1])
    column = hub_text.parse(source).column
    texts = []
    for path in hub_text.files(source):
        texts.append(next(documents(path, column=column)))
        if len(texts) == int(sys.argv[2]):
            break
    said = {"source": source, "texts": texts}
except TrtkError as error:
    said = {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
print(json.dumps(said))
"""


@pytest.fixture
def hub():
    made = Hub({"datasets/org/texts": Repository(COMMIT, dict(FILES))})
    server = start(made)
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture
def read(hub, tmp_path):
    """Read the first document of each file in a process that knows only the stand-in; return what it said."""

    def said(source, files=9, **variables):
        environment = environment_of(hub, tmp_path / "hf", **variables)
        command = [sys.executable, "-c", PROGRAM, source, str(files)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        return json.loads(done.stdout)

    return said


@pytest.mark.parametrize(
    ("source", "pinned", "texts"),
    [
        ("hf:org/texts", f"hf:org/texts@{COMMIT}::", ["first 0", "second 0"]),
        ("hf:org/texts@main:test", f"hf:org/texts@{COMMIT}:test:", ["tested 0"]),
        (f"hf:org/texts@{COMMIT}:train:title", f"hf:org/texts@{COMMIT}:train:title", ["FIRST", "SECOND"]),
    ],
)
def test_a_name_becomes_a_commit_and_only_the_splits_files_are_fetched(hub, read, source, pinned, texts):
    assert read(source) == {"source": pinned, "texts": texts}
    assert hub.fetched() == {
        name.rsplit("/", 1)[1] for name in FILES if f"/{'test' if 'test' in pinned.split(':')[2] else 'train'}" in name
    }


def test_a_file_that_is_not_needed_is_not_fetched(hub, read):
    assert read("hf:org/texts", files=1)["texts"] == ["first 0"]
    assert hub.fetched() == {"train-00000-of-00002.jsonl"}


def test_a_pinned_text_is_read_offline_from_the_cache(hub, read):
    source = read("hf:org/texts")["source"]
    hub.log.clear()

    assert read(source, HF_HUB_OFFLINE="1")["texts"] == ["first 0", "second 0"]
    assert hub.log == []


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "hf:org/other",
            {
                "error": "The hub has no data set org/other, or it is private.",
                "hint": "Check the name; for a private one set HF_TOKEN.",
                "exit_code": 2,
            },
        ),
        (
            "hf:org/texts@v9",
            {
                "error": "org/texts has no revision 'v9'.",
                "hint": "Give a branch, tag or commit after @, or nothing.",
                "exit_code": 2,
            },
        ),
        (
            "hf:org/texts:validation",
            {
                "error": "org/texts has no file of the split 'validation'; it has data/test-00000-of-00001.jsonl, "
                "data/train-00000-of-00002.jsonl, data/train-00001-of-00002.jsonl.",
                "hint": "Name a split or a path: --calib hf:org/texts:test",
                "exit_code": 2,
            },
        ),
    ],
)
def test_what_is_not_there_is_named_before_a_byte_is_fetched(hub, read, source, said):
    assert read(source) == said
    assert hub.fetched() == set()


@pytest.mark.parametrize("source", ["hf:", "hf:@main", "hf:a/b:c:d:e"])
def test_what_names_no_data_set_is_refused(source):
    with pytest.raises(UsageError, match="names no hub data set"):
        parse(source)


@pytest.mark.parametrize(
    ("split", "names", "found"),
    [
        (
            "",
            ["en/train/0.parquet", "en/train/1.parquet", "en/test/0.parquet"],
            ["en/train/0.parquet", "en/train/1.parquet"],
        ),
        ("raw/test", ["raw/test-0.parquet", "other/test-0.parquet"], ["raw/test-0.parquet"]),
        ("", ["everything.jsonl", "README.md"], ["everything.jsonl"]),
        ("", ["train.parquet", "train.jsonl"], ["train.jsonl"]),
        ("train", ["my_train.txt", "trainer.txt"], ["my_train.txt"]),
    ],
)
def test_a_split_is_a_whole_word_of_a_path(split, names, found):
    assert chosen(HubText(repo="a/b", split=split), names) == found


def test_subsets_have_to_be_named():
    with pytest.raises(UsageError) as caught:
        chosen(HubText(repo="a/b"), ["de/train-0.parquet", "en/train-0.parquet"])

    assert str(caught.value) == "a/b has several subsets with the split 'train': de, en."
    assert caught.value.hint == "Name one: --calib hf:a/b:de/train"
