"""How a container ended, in words, and what it said until then."""

import threading

import pytest

from toolkit.containers import Ended, running


@pytest.mark.parametrize(
    ("code", "is_oom_killed", "said"),
    [
        (137, False, "by SIGKILL"),
        (137, True, "by SIGKILL; it used more memory than it may"),
        (3, False, "with exit code 3"),
        (255, False, "with exit code 255"),
    ],
)
def test_an_end_is_told_by_signal_or_code(code, is_oom_killed, said):
    assert Ended(exit_code=code, is_oom_killed=is_oom_killed).how == said


class Deaf:
    """A container that has ended and its stream, which a daemon that has not noticed keeps open."""

    def __init__(self, said, read):
        self.said, self.read, self.closed = said, read, threading.Event()

    def wait(self):
        return {"StatusCode": 0}

    def logs(self):
        return self.said

    def close(self):
        self.closed.set()

    def __iter__(self):
        yield self.read
        assert self.closed.wait(20)


def test_a_daemon_that_misses_the_end_costs_no_line_and_does_not_hold_us_up(monkeypatch):
    monkeypatch.setattr(running, "LAST_LINES_TIMEOUT_S", 0.1)
    container = Deaf(b"first\nsecond\nthird\n", b"first\nsec")

    said = running._until_its_end(container, container)

    assert list(running._lines(said)) == ["first", "second", "third"]


def test_a_stream_that_ends_is_all():
    container = Deaf(b"first\nsecond\n", b"first\n")
    container.close()

    assert list(running._lines(running._until_its_end(container, container))) == ["first"]
