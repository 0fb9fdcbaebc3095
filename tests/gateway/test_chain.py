"""An audit log shows whether it is as it was written, and goes on after crashes and full disks."""

import errno
import json
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import GateError, UsageError
from toolkit.gateway import audit, chain
from toolkit.gateway.audit import AuditLog
from toolkit.gateway.refusals import Refusal


def written(path, count=4, *, first=0):
    log = AuditLog(path, is_required=True)
    for number in range(first, first + count):
        log.append({"kind": "request", "request_id": f"r{number}", "model": "é"})
    log.close()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "audit.jsonl"
    written(path)
    return path.read_bytes()


def test_records_follow_one_another_over_restarts(tmp_path):
    path = tmp_path / "logs" / "audit.jsonl"
    written(path, 2)
    written(path, 3, first=2)
    records = [json.loads(line) for line in path.read_text().splitlines()]

    assert [(record["sequence"], record["request_id"]) for record in records] == [(n + 1, f"r{n}") for n in range(5)]
    assert [record["previous"] for record in records] == [chain.GENESIS, *(record["hash"] for record in records[:-1])]
    assert chain.verify(path) == chain.Verified(records=5, requests=5, torn_lines=0, head=records[-1]["hash"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@given(st.data())
def test_no_byte_can_be_changed(whole, tmp_path_factory, data):
    place = data.draw(st.integers(0, len(whole) - 2))  # without its end the last record is one that was torn
    value = data.draw(st.integers(0, 255).filter(lambda byte: byte != whole[place]))
    path = tmp_path_factory.getbasetemp() / "changed.jsonl"
    path.write_bytes(whole[:place] + bytes([value]) + whole[place + 1 :])

    with pytest.raises(GateError, match=r"changed\.jsonl, line \d: "):
        chain.verify(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: [lines[0], *lines[2:]], "line 2: record 3 follows record 1."),
        (lambda lines: lines[1:], "line 1: record 2 follows record 0."),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "line 2: record 3 follows record 1."),
        (lambda lines: [*lines, lines[-1]], "line 5: record 4 follows record 4."),
        (lambda lines: [lines[0], b"{}\n", *lines[1:]], "line 2: this is no record, or one that was changed."),
        (lambda lines: [lines[0], b"\n", *lines[1:]], "line 2: this is no record, or one that was changed."),
    ],
)
def test_records_cannot_be_taken_out_put_in_or_moved(whole, tmp_path, change, said):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(change(whole.splitlines(keepends=True))))

    with pytest.raises(GateError) as caught:
        chain.verify(path)
    assert str(caught.value) == f"{path}, {said}"


def test_a_record_of_another_log_does_not_fit(whole, tmp_path):
    path = tmp_path / "audit.jsonl"
    lines = whole.splitlines(keepends=True)
    line, _ = chain.sealed({"kind": "request"}, sequence=3, previous="0" * 64)
    path.write_bytes(b"".join([*lines[:2], line + b"\n", lines[3]]))

    with pytest.raises(GateError, match="line 3: this record does not follow the one before it"):
        chain.verify(path)


def test_a_cut_at_the_end_shows_to_whoever_noted_the_head(whole, tmp_path):
    path = tmp_path / "audit.jsonl"
    path.write_bytes(whole)
    head = chain.verify(path).head
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:-1]))

    assert chain.verify(path).records == 3
    with pytest.raises(GateError, match=f"no record with the hash {head}"):
        chain.verify(path, expected=head)


@given(st.integers(1, 200))
def test_a_crash_in_the_middle_of_a_line_is_recorded_by_the_next_start(whole, tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "audit.jsonl"
    path.write_bytes(whole[:-cut])
    written(path, 2, first=9)
    verified = chain.verify(path)
    records = [record for line in path.read_bytes().splitlines() if (record := chain.parsed(line))]

    if cut == 1:  # nothing but the line's end was lost
        assert (verified.records, verified.torn_lines) == (6, 0)
    else:
        assert (verified.records, verified.torn_lines) == (6, 1)
        assert (records[3]["kind"], records[3]["torn"][0]["bytes"]) == (
            "recovered",
            len(whole.splitlines()[3]) + 1 - cut,
        )


def test_what_a_full_disk_did_not_take_is_written_when_there_is_room(small_disk):
    path = small_disk("64k") / "audit.jsonl"
    filler = path.with_name("filler")
    filler.write_bytes(bytes(20_000))
    log = AuditLog(path, is_required=True)
    for number in range(400):
        log.append({"kind": "request", "request_id": f"r{number}"})
    taken = chain.verify(path)
    with pytest.raises(Refusal, match="No space left on device"):
        log.need_writable()
    assert (0 < taken.requests < 400, taken.torn_lines) == (True, 1)

    filler.unlink()
    while log._unwritten and log._unwritten[-1]["request_id"] != f"r{taken.requests}":
        log._unwritten.pop()  # there is not room for all of them
    log.need_writable()
    log.close()
    assert chain.verify(path).requests == taken.requests + 1


def test_what_neither_a_full_disk_nor_the_memory_takes_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(audit, "MOST_WAITING_BYTES", 5 * audit.RECORD_BYTES)
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, is_required=True)

    def full(_line):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(log, "_put", full)
    for number in range(100):
        log.append({"kind": "request", "request_id": f"r{number}"})
    assert len(log._unwritten) == 5
    with pytest.raises(Refusal, match="cannot be recorded now"):
        log.need_writable()

    monkeypatch.undo()
    log.need_writable()
    log.append({"kind": "request", "request_id": "next"})
    log.close()
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record.get("request_id") for record in records] == [*(f"r{n}" for n in range(5)), None, "next"]
    assert (records[5]["kind"], records[5]["records"], chain.verify(path).requests) == ("lost", 95, 6)


def test_one_writer_at_a_time_and_nothing_but_an_audit_log(tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, is_required=True)
    with pytest.raises(UsageError, match="Another gateway writes the audit log"):
        AuditLog(path, is_required=True)
    log.close()
    other = tmp_path / "notes.txt"
    other.write_text("Buy milk.\n")
    with pytest.raises(UsageError, match="holds something else than an audit log"):
        AuditLog(other, is_required=True)
    assert other.read_text() == "Buy milk.\n"
