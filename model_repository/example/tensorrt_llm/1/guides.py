"""What a text must follow: checked before the engine is given it, since a grammar that fails there ends the engine."""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

from served import Refused

#: Of a grammar: the library compiles it between two steps of everybody's answers.
TIMEOUT_S, START_TIMEOUT_S = 5.0, 120.0
REFUSAL = "guided_decoding_guide is no {} that can be followed: "
LONGEST_GUIDE, MOST_REMEMBERED = 65_536, 1024


class Guides:
    """Asks a process of its own, started with the first guide; used by one thread."""

    def __init__(self, engine: Path) -> None:
        self.engine = engine
        self.checker: subprocess.Popen[str] | None = None
        self.scratch: tempfile.TemporaryDirectory[str] | None = None
        self.known: OrderedDict[tuple[str, str], str] = OrderedDict()

    def check(self, kind: str, guide: str) -> None:
        """Raise Refused for what cannot be followed."""
        if len(guide) > LONGEST_GUIDE:
            raise Refused(f"guided_decoding_guide has {len(guide)} characters; it may have {LONGEST_GUIDE}.")
        problem = self.known.get((kind, guide))
        if problem is None:
            problem = self._tried(kind, guide)
            if problem is None:  # not remembered: on a quieter machine it may be ready in time
                raise Refused(f"{REFUSAL.format(kind)}it takes more than {TIMEOUT_S:g} s to prepare.")
            self.known[kind, guide] = problem
            if len(self.known) > MOST_REMEMBERED:
                self.known.popitem(last=False)
        if problem:
            raise Refused(f"{REFUSAL.format(kind)}{problem}")

    def _tried(self, kind: str, guide: str) -> str | None:
        if self.checker is None or self.checker.poll() is not None:
            self.close()
            self.checker = self._started()
            if self._answer("json", "", START_TIMEOUT_S) != "":
                raise RuntimeError("grammars cannot be checked on this machine")
        return self._answer(kind, guide, TIMEOUT_S)

    def _answer(self, kind: str, guide: str, timeout_s: float) -> str | None:
        """Return what is wrong, "" where nothing is, None where the checker did not answer and was ended."""
        assert self.checker
        assert self.checker.stdin
        assert self.checker.stdout
        try:
            self.checker.stdin.write(json.dumps([kind, guide]) + "\n")
            self.checker.stdin.flush()
            line = self.checker.stdout.readline() if select.select([self.checker.stdout], [], [], timeout_s)[0] else ""
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
        if self.checker:
            self.checker.kill()
            self.checker.communicate()
            self.checker = None
        if self.scratch:
            self.scratch.cleanup()
            self.scratch = None
