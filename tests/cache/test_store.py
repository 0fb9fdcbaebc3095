"""Results are kept whole, shared safely, and dropped when somebody wrote into them."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from toolkit import cache
from toolkit.cache import CHECKPOINTS, Store
from toolkit.errors import MissingError

LARGE = bytes(range(256)) * 8192  # 2 MiB: large enough to be linked
SMALL = b'{"small": true}'


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "cache")


@pytest.fixture
def made(tmp_path):
    folder = tmp_path / "made"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "rank0.safetensors").write_bytes(LARGE)
    (folder / "tokenizer/tokenizer.json").write_bytes(SMALL)
    return folder


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def kept(tmp_path):
    return [(entry.kind, entry.key) for entry in cache.entries(tmp_path / "cache")]


WHOLE = {"rank0.safetensors": LARGE, "tokenizer/tokenizer.json": SMALL}


def test_what_is_put_is_taken_as_it_was(store, made, tmp_path):
    assert store.take(CHECKPOINTS, "k", tmp_path / "out") is False

    assert store.put(CHECKPOINTS, "k", made, about={"model": "demo"}) is True

    assert store.take(CHECKPOINTS, "k", tmp_path / "out") is True
    assert files(tmp_path / "out") == WHOLE
    (entry,) = cache.entries(tmp_path / "cache")
    assert (entry.kind, entry.key, entry.size_bytes) == (CHECKPOINTS, "k", len(LARGE) + len(SMALL))
    assert entry.about == {"model": "demo"}


def test_large_files_are_shared_and_read_only_and_small_ones_are_one_s_own(store, made, tmp_path):
    store.put(CHECKPOINTS, "k", made, about={})
    store.take(CHECKPOINTS, "k", tmp_path / "out")

    large, small = tmp_path / "out/rank0.safetensors", tmp_path / "out/tokenizer/tokenizer.json"
    is_shared = large.stat().st_ino == (made / "rank0.safetensors").stat().st_ino
    assert not is_shared or large.stat().st_mode & 0o222 == 0  # a reflink is a file of its own
    small.write_text("edited")
    assert files(made) == WHOLE
    assert store.take(CHECKPOINTS, "k", tmp_path / "again") is True
    assert files(tmp_path / "again") == WHOLE


@pytest.mark.parametrize("how", ["in place", "in place, with the old time", "cut short", "by rename"])
def test_an_edit_of_a_large_file_is_never_handed_on(store, made, tmp_path, how):
    store.put(CHECKPOINTS, "k", made, about={})
    store.take(CHECKPOINTS, "k", tmp_path / "mine")
    path = tmp_path / "mine/rank0.safetensors"
    before = path.stat()
    if how == "by rename":
        (tmp_path / "new").write_bytes(b"another")
        (tmp_path / "new").replace(path)
    else:
        path.chmod(0o644)
        with path.open("rb+") as stream:
            stream.truncate(10) if how == "cut short" else stream.write(b"X")
    if how.endswith("old time"):
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    found = store.take(CHECKPOINTS, "k", tmp_path / "theirs")

    # Where the file was shared, the entry is gone; where it was not, the entry is whole.
    assert found is (kept(tmp_path) == [(CHECKPOINTS, "k")])
    assert not found or files(tmp_path / "theirs") == WHOLE
    assert found or not (tmp_path / "theirs").exists()
    assert how != "by rename" or found


def test_nothing_is_kept_on_another_file_system_that_is_full(store, made, tmp_path, small_disk):
    disk = small_disk("1m", "cache")
    assert store.put(CHECKPOINTS, "k", made, about={}) is False
    assert kept(tmp_path) == []
    assert [path.name for path in (disk / "tmp").iterdir()] == []
    assert files(made) == WHOLE


def test_on_another_file_system_files_are_copied(made, tmp_path, small_disk):
    disk = small_disk("16m")
    store = Store(disk / "cache")
    assert store.put(CHECKPOINTS, "k", made, about={}) is True
    assert (made / "rank0.safetensors").stat().st_nlink == 1
    assert store.take(CHECKPOINTS, "k", tmp_path / "out") is True
    assert files(tmp_path / "out") == WHOLE
    (tmp_path / "out/rank0.safetensors").write_bytes(b"mine now")
    assert store.take(CHECKPOINTS, "k", tmp_path / "again") is True


PUT = """
import sys
from pathlib import Path
from toolkit.cache import Store
Store(Path(sys.argv[1])).put("checkpoints", "k", Path(sys.argv[2]), about={})
"""
#: Puts, takes and drops for ever, until it is killed.
CHURN = """
import sys
from pathlib import Path
from toolkit.cache import Store
store, made, out = Store(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
print("on", flush=True)
while True:
    store.put("checkpoints", "k", made, about={})
    if store.take("checkpoints", "k", out):
        (out / "rank0.safetensors").stat()
    store.drop("checkpoints", "k")
"""


def churn(tmp_path, made, name):
    line = [sys.executable, "-c", CHURN, tmp_path / "cache", made, tmp_path / name]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "on\n"
    return process


@pytest.mark.parametrize("seed", range(6))
def test_kill_9_at_any_moment_leaves_nothing_half_made(store, made, tmp_path, seed):
    """Two processes put, take and drop the same entry at once; one is killed, the other must not notice."""
    for index in range(200):  # enough of them that most kills come while files are being placed
        (made / f"{index}.json").write_text(str(index))
    whole = files(made)
    killed, other = churn(tmp_path, made, "a"), churn(tmp_path, made, "b")
    time.sleep(0.05 + 0.037 * seed)
    killed.kill()
    killed.communicate(timeout=10)
    time.sleep(0.1)
    assert other.poll() is None, other.stderr.read()
    other.send_signal(signal.SIGKILL)
    other.communicate(timeout=10)

    for name in ("a", "b"):  # a folder has its name only when it is whole
        assert not (tmp_path / name).exists() or files(tmp_path / name) == whole
    assert files(made) == whole
    assert store.take(CHECKPOINTS, "k", tmp_path / "out") in {True, False}
    assert store.put(CHECKPOINTS, "k", made, about={}) is True
    assert store.take(CHECKPOINTS, "k", tmp_path / "out") is True
    assert files(tmp_path / "out") == whole
    time.sleep(0.01)
    cache.collect(tmp_path / "cache", now_s=time.time())
    assert [path for path in (tmp_path / "cache/tmp").iterdir() if path.is_dir()] == []


def test_one_makes_while_the_second_waits_and_finds_it(made, tmp_path):
    program = """
import sys, time
from pathlib import Path
from toolkit.cache import Store
store, made, out = Store(Path(sys.argv[1])), Path(sys.argv[2]), Path(sys.argv[3])
with store.making("checkpoints", "k"):
    found = store.take("checkpoints", "k", out)
    if not found:
        time.sleep(0.5)
        store.put("checkpoints", "k", made, about={})
print("found" if found else "made")
"""
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / "cache", made, tmp_path / f"out{index}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(3)
    ]

    assert sorted(process.communicate(timeout=30)[0] for process in running) == ["found\n", "found\n", "made\n"]


def test_who_waits_for_another_says_so(store):
    holding, waiting = threading.Event(), threading.Event()

    def hold():
        with store.making(CHECKPOINTS, "k"):
            holding.set()
            waiting.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    holding.wait(10)
    with store.making(CHECKPOINTS, "other", on_wait=pytest.fail):
        pass
    with store.making(CHECKPOINTS, "k", on_wait=waiting.set):
        assert waiting.is_set()
    holder.join(10)


def aged(tmp_path, store, made, *keys):
    """Put entries, the first used longest ago: 10 days apart, the last one today."""
    for key in keys:
        store.put(CHECKPOINTS, key, made, about={})
    now = time.time()
    for age, key in enumerate(reversed(keys)):
        used = now - age * 10 * 86400
        os.utime(tmp_path / "cache" / CHECKPOINTS / key / "entry.json", (used, used))
    return now


def test_gc_removes_what_was_not_used_for_long(store, made, tmp_path):
    now = aged(tmp_path, store, made, "a", "b", "c")

    gone = cache.collect(tmp_path / "cache", now_s=now, older_than_s=15 * 86400)

    assert [entry.key for entry in gone] == ["a"]
    assert kept(tmp_path) == [(CHECKPOINTS, "b"), (CHECKPOINTS, "c")]


def test_gc_keeps_the_most_recently_used_within_a_size(store, made, tmp_path):
    now = aged(tmp_path, store, made, "a", "b", "c")
    size = len(LARGE) + len(SMALL)
    store.take(CHECKPOINTS, "a", tmp_path / "out")  # now the most recent

    gone = cache.collect(tmp_path / "cache", now_s=now, max_bytes=2 * size)

    assert [entry.key for entry in gone] == ["b"]
    assert kept(tmp_path) == [(CHECKPOINTS, "c"), (CHECKPOINTS, "a")]


def test_what_a_build_folder_shares_is_not_counted_as_freed(store, made, tmp_path):
    store.put(CHECKPOINTS, "k", made, about={})
    (shared,) = cache.entries(tmp_path / "cache")
    (made / "rank0.safetensors").unlink()
    (alone,) = cache.entries(tmp_path / "cache")

    assert alone.freed_bytes == alone.size_bytes == len(LARGE) + len(SMALL)
    assert shared.freed_bytes in {len(SMALL), shared.size_bytes}  # linked, or a reflink that nobody can count


@pytest.mark.parametrize("content", ["", "{", "[]", '{"schema_version": 2}', '{"schema_version": 1, "files": 3}'])
def test_a_damaged_entry_is_no_entry(store, made, tmp_path, content):
    store.put(CHECKPOINTS, "k", made, about={})
    (tmp_path / "cache" / CHECKPOINTS / "k" / "entry.json").write_text(content)

    assert store.take(CHECKPOINTS, "k", tmp_path / "out") is False
    assert kept(tmp_path) == []


def test_no_cache_is_no_fault(made, tmp_path):
    store = Store(None)
    with store.making(CHECKPOINTS, "k"):
        assert store.put(CHECKPOINTS, "k", made, about={}) is False
        assert store.take(CHECKPOINTS, "k", tmp_path / "out") is False
    assert not Path(tmp_path / "out").exists()


def test_a_cache_that_is_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")

    with pytest.raises(MissingError, match="file cannot be used: ") as caught, store.making(CHECKPOINTS, "k"):
        pass
    assert caught.value.hint == "TRTK_BUILD_CACHE names another folder; TRTK_BUILD_CACHE=off does without one."
