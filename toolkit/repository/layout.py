"""What a repository layout is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from toolkit.specs import RepositorySpec

#: The text of an empty file that keeps an empty version folder in git and in archives.
KEPT = ""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A kind of model repository: its name, and the files it consists of."""

    name: str
    render: Callable[[RepositorySpec], dict[str, str]]
