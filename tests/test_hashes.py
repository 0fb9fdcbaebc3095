"""A remembered hash is the file's own, whatever was done to the file meanwhile."""

import hashlib
import os

import pytest

from toolkit import hashes


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "weights").write_bytes(os.urandom(3 << 20))
    return tmp_path / "weights"


def truth(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_that_was_not_touched_is_not_read_again(path):
    assert hashes.sha256_of(path) == truth(path)

    (note,) = hashes.memory_dir().iterdir()
    note.write_text(note.read_text().replace(truth(path), "0" * 64))
    assert hashes.sha256_of(path) == "0" * 64  # believed, so not read


@pytest.mark.parametrize("is_time_put_back", [False, True])
def test_an_edit_is_seen_even_when_the_time_is_put_back(path, is_time_put_back):
    hashes.sha256_of(path)
    before = path.stat()
    with path.open("rb+") as stream:
        stream.write(b"edited")
    if is_time_put_back:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert hashes.sha256_of(path) == truth(path)


def test_edits_in_quick_succession_are_seen(path):
    for index in range(20):
        with path.open("rb+") as stream:
            stream.write(bytes([index]))
        assert hashes.sha256_of(path) == truth(path)


def test_a_damaged_note_is_passed_over(path):
    hashes.sha256_of(path)
    (note,) = hashes.memory_dir().iterdir()
    for content in ("", "{", "[]", "{}", '{"file": null, "sha256": "x"}'):
        note.write_text(content)
        assert hashes.sha256_of(path) == truth(path)


def test_a_cache_that_cannot_be_written_is_no_fault(path, tmp_path, monkeypatch):
    (tmp_path / "blocked").write_text("a file where the folder should be")
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "blocked"))

    assert hashes.sha256_of(path) == truth(path)


def test_what_was_remembered_long_ago_is_forgotten(path):
    hashes.sha256_of(path)
    (note,) = hashes.memory_dir().iterdir()
    (hashes.memory_dir() / ".x.json.abc.part").write_text("of a process that was killed")
    os.utime(note, (1000, 1000))

    assert hashes.forget(before_s=2000) == 1
    assert list(hashes.memory_dir().iterdir()) == []
    assert hashes.sha256_of(path) == truth(path)
    assert hashes.forget(before_s=2000) == 0
