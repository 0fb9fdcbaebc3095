"""The event loop of a load test: uvloop's where it is installed, as each wakeup of Python's own costs twice the CPU."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Coroutine
from importlib.util import find_spec
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end on a loop of its own."""
    allow_connections()
    if find_spec("uvloop"):
        import uvloop

        return uvloop.run(work)
    return asyncio.run(work)


def allow_connections() -> None:
    """Let this process have as many connections as the machine allows it: 1,024 are common, and soon used up."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(ValueError, OSError):  # some systems name a limit that they do not grant
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
