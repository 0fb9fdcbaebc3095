"""What a text must follow: checked before the engine is given it, since a grammar that fails there ends the engine."""

from __future__ import annotations

import json
import queue
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import OrderedDict
from pathlib import Path

from served import Refused

#: Of a grammar: the library compiles it between two steps of everybody's answers.
TIMEOUT_S, START_TIMEOUT_S = 5.0, 120.0
#: One that took too long is refused at once for so long; then it is tried again, on a machine that may be quieter.
SLOW_FOR_S = 60.0
REFUSAL = "guided_decoding_guide is no {} that can be followed: "
LONGEST_GUIDE, MOST_REMEMBERED = 65_536, 1024
#: Processes that check; the second starts when a guide comes while the first has one that takes its time.
CHECKERS = 2

Guide = tuple[str, str]  # its type, and its text


class Guides:
    """Remembers what was said of each guide, and asks a checker about a new one; threads may use it together."""

    def __init__(self, engine: Path) -> None:
        self.checkers = [Checker(engine) for _ in range(CHECKERS)]
        self.idle: queue.LifoQueue[Checker] = queue.LifoQueue()
        for checker in reversed(self.checkers):
            self.idle.put(checker)
        self.lock = threading.Lock()
        self.known: OrderedDict[Guide, str] = OrderedDict()
        self.slow_until: OrderedDict[Guide, float] = OrderedDict()

    def is_known(self, kind: str, guide: str) -> bool:
        """Whether `check` answers at once."""
        with self.lock:
            is_slow = self.slow_until.get((kind, guide), 0.0) > time.monotonic()
            return is_slow or (kind, guide) in self.known or len(guide) > LONGEST_GUIDE

    def check(self, kind: str, guide: str) -> None:
        """Raise Refused for what cannot be followed."""
        if len(guide) > LONGEST_GUIDE:
            raise Refused(f"guided_decoding_guide has {len(guide)} characters; it may have {LONGEST_GUIDE}.")
        if not self.is_known(kind, guide):
            self._ask((kind, guide))
        problem = self.known.get((kind, guide))
        if problem is None:
            problem = f"it takes more than {TIMEOUT_S:g} s to prepare."
        if problem:
            raise Refused(f"{REFUSAL.format(kind)}{problem}")

    def _ask(self, guide: Guide) -> None:
        checker = self.idle.get()
        try:
            problem = checker.tried(*guide)
        finally:
            self.idle.put(checker)
        with self.lock:
            if problem is None:
                self.slow_until[guide] = time.monotonic() + SLOW_FOR_S
            else:
                self.slow_until.pop(guide, None)
                self.known[guide] = problem
            for remembered in (self.known, self.slow_until):
                if len(remembered) > MOST_REMEMBERED:
                    remembered.popitem(last=False)

    def close(self) -> None:
        """End the processes."""
        for checker in self.checkers:
            checker.close()


class Checker:
    """A process that tries grammars, started with the first; used by one thread at a time."""

    def __init__(self, engine: Path) -> None:
        self.engine = engine
        self.process: subprocess.Popen[str] | None = None
        self.scratch: tempfile.TemporaryDirectory[str] | None = None

    def tried(self, kind: str, guide: str) -> str | None:
        """Return what is wrong, "" where nothing is, None where there was no answer and the process was ended."""
        if self.process is None or self.process.poll() is not None:
            self.close()
            self.process = self._started()
            if self._answer("json", "", START_TIMEOUT_S) != "":
                raise RuntimeError("grammars cannot be checked on this machine")
        return self._answer(kind, guide, TIMEOUT_S)

    def _answer(self, kind: str, guide: str, timeout_s: float) -> str | None:
        assert self.process
        assert self.process.stdin
        assert self.process.stdout
        try:
            self.process.stdin.write(json.dumps([kind, guide]) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline() if select.select([self.process.stdout], [], [], timeout_s)[0] else ""
        except BrokenPipeError:
            line = ""
        if line:
            return str(json.loads(line))
        self.close()
        return None

    def _started(self) -> subprocess.Popen[str]:
        # The stub's own executable is no interpreter: it embeds the first python3 of PATH.
        python = shutil.which("python3") or sys.executable
        script = Path(__file__).with_name("guide_checker.py")
        # Of ours, since a checker that is killed cannot tidy up.
        self.scratch = tempfile.TemporaryDirectory(prefix="trtk-guides-")
        command = [python, str(script), str(self.engine), self.scratch.name]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        """End the process."""
        if self.process:
            self.process.kill()
            self.process.communicate()
            self.process = None
        if self.scratch:
            self.scratch.cleanup()
            self.scratch = None
