"""How deep a JSON text nests, counted as its bytes come and without reading it.

RapidJSON, Triton's reader, calls itself for each level: some 110,000 of them end the stack of one of its threads, and
with it the server. Where this count and RapidJSON differ, RapidJSON has met an error before, and reads no further.
"""

from __future__ import annotations

import itertools
import re

#: No request for text or tensors nests deeper than a tensor has dimensions; RFC 8259 lets a reader set its limit.
MAX_DEPTH = 512
ESCAPED = re.compile(rb"\\.", re.DOTALL)
BRACKETS = b"[]{}"
#: Of all bytes, those that say nothing of the depth, once what is escaped is gone.
OTHERS = bytes(byte for byte in range(256) if byte not in b'"' + BRACKETS)
STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}


class Nesting:
    """The depth of one JSON text, which comes in pieces."""

    def __init__(self) -> None:
        self._depth = 0
        self._is_in_string = self._is_in_escape = False

    def is_too_deep(self, piece: bytes) -> bool:
        """Whether the text nests deeper than `MAX_DEPTH` somewhere in its next bytes."""
        brackets = self._outside_of_strings(piece)
        openings = brackets.count(b"[") + brackets.count(b"{")
        # Only the sum of a piece matters, unless it could have been too deep on the way.
        if self._depth + openings > MAX_DEPTH:
            depths = itertools.accumulate(map(STEPS.__getitem__, brackets), initial=self._depth)
            if max(depths) > MAX_DEPTH:
                return True
        self._depth += 2 * openings - len(brackets)
        return False

    def _outside_of_strings(self, piece: bytes) -> bytes:
        """Return the brackets that are no text."""
        if self._is_in_escape and piece:
            piece, self._is_in_escape = piece[1:], False
        if b"\\" in piece:
            piece = ESCAPED.sub(b"", piece)
            self._is_in_escape = piece.endswith(b"\\")
        parts = piece.translate(None, OTHERS).split(b'"')
        outside = b"".join(parts[int(self._is_in_string) :: 2])
        self._is_in_string ^= len(parts) % 2 == 0
        return outside
