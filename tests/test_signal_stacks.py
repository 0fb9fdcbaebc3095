"""The stack for signals that a library leaves behind in one test is not that of the next one."""

import ctypes
import os
import signal

import pytest

from tests.signal_stacks import SignalStack, signal_stack, use

SIZE_BYTES = 1 << 20


@pytest.fixture(scope="module")
def left():
    """The memory of such a stack, which stays: without the fixture of conftest.py, the second test fails alone."""
    return ctypes.create_string_buffer(SIZE_BYTES)


def test_a_library_may_leave_a_stack_for_signals(left):
    use(SignalStack(ctypes.addressof(left), 0, SIZE_BYTES))
    assert signal_stack().ss_sp == ctypes.addressof(left)


def test_the_next_test_has_its_own_and_hears_signals(left):
    assert signal_stack().ss_sp != ctypes.addressof(left)
    heard = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: heard.append(number))
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, before)
    assert heard == [signal.SIGUSR1]
