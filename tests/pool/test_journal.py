"""A pool's journal: what a crash leaves of it is read, and says what the pool held."""

import contextlib
import os
import stat

import pytest

from toolkit.pool import journal
from toolkit.pool.journal import Journal


def test_a_replayed_journal_says_what_each_model_is(tmp_path):
    path = tmp_path / "pools/a/journal.jsonl"
    written = Journal(path)
    written.write("started", models=["a", "b", "c"], limit_bytes=10)
    written.write("load_begun", "a", why="1 waiting")
    written.write("loaded", "a", load_s=2.5)
    written.write("load_begun", "b", why="1 waiting")
    written.write("load_failed", "b", why="no weights")
    written.write("unload_begun", "a", why="room for c")
    written.write("unloaded", "a")
    written.write("load_begun", "c", why="1 waiting")
    written.close()

    assert journal.replayed(path) == {"a": "unloaded", "b": "failed", "c": "loading"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [(event["event"], event.get("why")) for event in journal.read(path)][1:3] == [
        ("load_begun", "1 waiting"),
        ("loaded", None),
    ]


def test_a_line_that_a_crash_cut_off_is_left_out_and_the_next_one_is_whole(tmp_path):
    path = tmp_path / "journal.jsonl"
    first = Journal(path)
    first.write("started", models=["a"])
    first.write("loaded", "a")
    first.close()
    os.truncate(path, path.stat().st_size - 7)

    second = Journal(path)
    second.write("lost", "a", why="Triton was started again")
    second.close()

    assert [event["event"] for event in journal.read(path)] == ["started", "lost"]
    assert journal.replayed(path) == {"a": "unloaded"}


def test_what_a_full_disk_did_not_take_is_written_in_order_when_there_is_room(small_disk, capfd):
    disk = small_disk("64k")
    path = disk / "journal.jsonl"
    written = Journal(path)
    written.write("started", models=["a", "b"])
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
        while True:
            stream.write(b"x" * 100)
    for _ in range(30):
        written.write("load_begun", "a", why="1 waiting" * 30)
        written.write("loaded", "a")
    filler.unlink()
    written.write("unloaded", "a")
    written.close()

    found = [event["event"] for event in journal.read(path)]
    assert found == ["started", *["load_begun", "loaded"] * 30, "unloaded"]
    assert capfd.readouterr().err.count("cannot be written now (No space left on device)") == 1


def test_a_new_start_begins_with_nothing_loaded(tmp_path):
    path = tmp_path / "journal.jsonl"
    written = Journal(path)
    written.write("started", models=["a", "old"])
    written.write("loaded", "old")
    written.write("started", models=["a"])
    written.close()

    assert journal.replayed(path) == {"a": "unloaded"}


def test_what_was_measured_last_of_the_same_bytes_is_known(tmp_path):
    path = tmp_path / "journal.jsonl"
    written = Journal(path)
    facts = {"artefact": "sha", "kv_tokens": 64}
    written.write("loaded", "a", load_s=3.0, base_bytes=5, peak_bytes=6, **facts)
    written.write("unloaded", "renamed", base_bytes=5, peak_bytes=9, is_known_at_work=True, **facts)
    written.write("loaded", "b", load_s=1.0, base_bytes=1, peak_bytes=1, artefact="sha", kv_tokens=128)
    written.close()

    assert journal.measured(path)["sha", 64] == {
        "load_s": 3.0,
        "base_bytes": 5,
        "peak_bytes": 9,
        "is_known_at_work": True,
    }


def test_no_journal_is_an_empty_one_and_an_unknown_event_is_a_mistake(tmp_path):
    assert journal.replayed(tmp_path / "none") == {}
    with pytest.raises(ValueError, match="'exploded' is no event"):
        Journal(tmp_path / "journal.jsonl").write("exploded")


def test_a_line_for_people_has_the_reason_and_the_sizes():
    event = {"at": 0.0, "event": "unload_begun", "model": "a", "why": "room for b", "peak_bytes": 3 << 20}

    assert journal.line(event)[24:] == 'a                unload_begun  why="room for b" peak_bytes=3MiB'
