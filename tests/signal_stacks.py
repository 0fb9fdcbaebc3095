"""The stack that the kernel runs a thread's signal handlers on: see sigaltstack(2)."""

import ctypes

LIBC = ctypes.CDLL(None, use_errno=True)


class SignalStack(ctypes.Structure):
    """The C library's stack_t."""

    _fields_ = (("ss_sp", ctypes.c_void_p), ("ss_flags", ctypes.c_int), ("ss_size", ctypes.c_size_t))


def signal_stack() -> SignalStack:
    """Return the stack that this thread has."""
    found = SignalStack()
    if LIBC.sigaltstack(None, ctypes.byref(found)):
        raise OSError(ctypes.get_errno(), "sigaltstack")
    return found


def use(stack: SignalStack) -> None:
    """Give this thread a stack."""
    if LIBC.sigaltstack(ctypes.byref(stack), None):
        raise OSError(ctypes.get_errno(), "sigaltstack")
