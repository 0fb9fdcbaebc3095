"""`trtk cache` as a shell sees it."""

import json
import os
import time

import pytest
from click.testing import CliRunner

from toolkit.cache import Store
from toolkit.cli import main

SIZE = 2 << 20
DAY_S = 86400


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A cache with three checkpoints, last used 20, 10 and 0 days ago."""
    monkeypatch.setenv("TRTK_BUILD_CACHE", str(tmp_path / "builds"))
    for age, key in ((20, "aa11"), (10, "bb22"), (0, "cc33")):
        made = tmp_path / key
        made.mkdir()
        (made / "rank0.safetensors").write_bytes(bytes(SIZE))
        about = {"model": "LlamaForCausalLM, 2 layers of 256", "quant": "int4", "gpu": "a4500"}
        Store(tmp_path / "builds").put("checkpoints", key, made, about=about)
        (made / "rank0.safetensors").unlink()
        used = time.time() - age * DAY_S - 60
        os.utime(tmp_path / "builds/checkpoints" / key / "entry.json", (used, used))
    return tmp_path / "builds"


def run(*line, code=0):
    result = CliRunner().invoke(main, ["cache", *line])
    assert result.exit_code == code, result.stderr
    return result.stdout if code == 0 else result.stderr


def kept(root):
    return sorted(path.name for path in (root / "checkpoints").glob("[!.]*"))


def test_ls_says_what_is_kept(root):
    document = json.loads(run("ls", "--json"))

    assert (document["folder"], document["bytes"]) == (str(root), 3 * SIZE)
    assert [entry["key"] for entry in document["entries"]] == ["aa11", "bb22", "cc33"]
    assert {entry["freed_bytes"] for entry in document["entries"]} == {SIZE}
    assert "bb22" in run("ls")


def test_rm_takes_the_beginning_of_a_key(root):
    assert run("rm", "bb") == "Removed 1 entry, freeing 2.1 MB.\n"
    assert kept(root) == ["aa11", "cc33"]
    assert run("rm", "--all") == "Removed 2 entries, freeing 4.2 MB.\n"
    assert kept(root) == []


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (["--older-than", "15d"], ["bb22", "cc33"]),
        (["--older-than", "5d"], ["cc33"]),
        (["--max-size", "3MB"], ["cc33"]),
        (["--max-size", "0"], []),
        (["--max-size", "1tb", "--older-than", "1w"], ["cc33"]),
        ([], ["aa11", "bb22", "cc33"]),
    ],
)
def test_gc_keeps_what_is_young_and_fits(root, options, left):
    document = json.loads(run("gc", *options, "--json"))

    assert kept(root) == left
    assert document["freed_bytes"] == (3 - len(left)) * SIZE


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (["rm"], "Error: Say which entries.\nHint: trtk cache rm KEY, or trtk cache rm --all.\n"),
        (["rm", "aa11", "--all"], "Error: Say which entries.\nHint: trtk cache rm KEY, or trtk cache rm --all.\n"),
        (["rm", ""], "Error: Say which entries.\n"),  # an unset variable of a script: every key begins with it
        (
            ["rm", "aa12"],
            "Error: There is no cache entry named 'aa12'.\nHint: Did you mean aa11? `trtk cache ls` lists",
        ),
        (["gc", "--max-size", "much"], "Error: --max-size 'much' is no amount.\nHint: --max-size 200GB\n"),
        (["gc", "--older-than", "3y"], "Error: --older-than '3y' is no amount.\nHint: --older-than 30d\n"),
    ],
)
@pytest.mark.usefixtures("root")
def test_what_cannot_be_meant_is_said(line, message):
    assert run(*line, code=2).startswith(message)


def test_an_empty_cache_and_one_that_is_switched_off_are_said(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_BUILD_CACHE", str(tmp_path / "none"))
    assert run("ls") == f"The cache in {tmp_path / 'none'} is empty.\n"
    assert run("gc", "--max-size", "1GB") == "Removed 0 entries, freeing 0.0 MB.\n"
    monkeypatch.setenv("TRTK_BUILD_CACHE", "off")
    assert run("ls") == "The cache is empty: it is switched off.\n"
    assert json.loads(run("ls", "--json")) == {"folder": None, "bytes": 0, "entries": []}
