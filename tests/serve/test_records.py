"""A record on a full disk: what became of a server can still be written down, and is read whole."""

import contextlib
import dataclasses
import threading

import pytest

from toolkit import processes, serve
from toolkit.errors import MissingError
from toolkit.serve import records
from toolkit.serve.records import Record
from toolkit.specs import Endpoint, ServeSpec


@pytest.fixture
def full(small_disk, monkeypatch):
    """A function that fills the disk of the records."""
    disk = small_disk("1m")
    monkeypatch.setenv("TRTK_STATE", str(disk))

    def fill():
        with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as stream:
            while True:
                stream.write(b"\0" * 4096)

    return fill


def record_of(name="a"):
    spec = ServeSpec(name=name, repository="/r", backend="embedded")
    endpoint = Endpoint(
        name=name, http_url="", grpc_url="", metrics_url="", pid=1, log_path="", started_at="", spec=spec
    )
    return Record(server_id="1", endpoint=endpoint, boot_id="", start_ticks=0, owner_pid=1, owner_start_ticks=0)


def test_a_failure_is_written_down_on_a_full_disk(full):
    record = record_of()
    records.write(record)
    full()
    changed = records.change(record, failures=1, last_failure="x" * 500)

    assert records.read("a") == changed
    assert records.change(changed, failures=0, last_failure="") == record
    assert records.read("a") == record


def test_what_has_no_room_in_the_old_record_is_an_error_and_the_old_one_stays(full):
    record = record_of()
    records.write(record)
    full()
    with pytest.raises(MissingError, match="The disk is full"):
        records.change(record, last_failure="x" * 100_000)
    with pytest.raises(MissingError, match="The disk is full"):
        records.write(record_of("b"))

    assert records.read_all() == [record]


def test_a_hint_names_a_server_as_a_shell_takes_it(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_STATE", str(tmp_path))
    me = processes.this_process()
    alive = {"boot_id": processes.boot_id(), "owner_pid": me.pid, "owner_start_ticks": me.start_ticks}
    made = record_of("my server; ls")
    records.write(
        dataclasses.replace(made, endpoint=dataclasses.replace(made.endpoint, pid=records.NOT_STARTED), **alive)
    )
    with pytest.raises(MissingError) as refused:
        serve.start(dataclasses.replace(made.endpoint.spec, is_pool=True))
    assert refused.value.hint.startswith("Use it, or `trtk stop 'my server; ls'`, or ")


@pytest.fixture(autouse=True)
def _no_records_left():
    yield
    for record in records.read_all():
        records.remove(record)


def test_a_record_that_is_just_being_written_over_is_read_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_STATE", str(tmp_path))
    record = record_of()
    records.write(record)
    path = records.folder() / "a.json"
    whole = path.read_text()
    path.write_text(whole[:50])
    monkeypatch.setattr(records, "READ_PAUSE_S", 0.5)
    threading.Timer(0.1, path.write_text, [whole]).start()

    assert records.read("a") == record
    records.remove(record)
