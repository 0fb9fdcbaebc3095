"""Results of builds by what they depend on: made once, given to every build that asks for the same."""

from toolkit.cache.entries import Entry, collect, entries, remove
from toolkit.cache.keys import code_digest, key_of, sources_of
from toolkit.cache.store import CHECKPOINTS, ENGINES, Store, root

__all__ = [
    "CHECKPOINTS",
    "ENGINES",
    "Entry",
    "Store",
    "code_digest",
    "collect",
    "entries",
    "key_of",
    "remove",
    "root",
    "sources_of",
]
