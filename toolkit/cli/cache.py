"""`trtk cache`: what builds have in common."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolkit.cli import amounts, output
from toolkit.cli.amounts import amount
from toolkit.errors import UnknownName, UsageError
from toolkit.specs import to_json

if TYPE_CHECKING:
    from toolkit.cache import Entry

EPILOG = output.examples("trtk cache ls", "trtk cache gc --max-size 200GB --older-than 30d")
#: Remembered hashes of files that nobody has asked about for so long go with the garbage.
HASHES_KEPT_S = 90 * 86400
SHOWN_DIGITS = 10
COLUMNS = ("key", "kind", "model", "quant", "for", "size", "frees", "last used")


@click.group(epilog=EPILOG)
def cache() -> None:
    """Show and clear what builds have made: checkpoints and engines that the next build of the same takes.

    Large files are shared with build folders, so removing an entry frees only what no folder has any more.
    """


@cache.command("ls", epilog=output.examples("trtk cache ls", "trtk cache ls --json"))
@output.json_option
def list_entries(as_json: bool) -> None:
    """List what is kept, least recently used first."""
    root, kept = _kept()
    if as_json:
        total = sum(entry.size_bytes for entry in kept)
        document = {
            "folder": str(root) if root else None,
            "bytes": total,
            "entries": [to_json(entry) for entry in kept],
        }
        output.document(document)
    elif not kept:
        output.text(f"The cache {f'in {root} ' if root else ''}is empty{'' if root else ': it is switched off'}.")
    else:
        output.table(str(root), COLUMNS, [_row(entry) for entry in kept], right=("size", "frees"))


@cache.command("rm", epilog=output.examples("trtk cache rm 3f9a02", "trtk cache rm --all"))
@click.argument("keys", nargs=-1, metavar="[KEY]...")
@click.option("--all", "is_all", is_flag=True, help="Everything.")
@output.json_option
def remove_entries(keys: tuple[str, ...], is_all: bool, as_json: bool) -> None:
    """Remove entries by the beginning of their KEY, as `trtk cache ls` shows it. Build folders keep what they have."""
    from toolkit import cache as caches

    if bool(keys) == is_all or not all(key.strip() for key in keys):  # every key begins with an empty one
        raise UsageError("Say which entries.", hint="trtk cache rm KEY, or trtk cache rm --all.")
    root, kept = _kept()
    wanted = kept if is_all else [entry for key in keys for entry in _named(kept, key)]
    _say_removed(caches.remove(root, wanted) if root else [], as_json=as_json)


@cache.command("gc", epilog=output.examples("trtk cache gc --max-size 200GB", "trtk cache gc --older-than 30d"))
@click.option("--max-size", metavar="SIZE", help="Keep at most this, most recently used first: 500MB, 200GB.")
@click.option("--older-than", metavar="TIME", help="Remove what was not used for so long: 12h, 30d, 8w.")
@output.json_option
def collect_garbage(max_size: str | None, older_than: str | None, as_json: bool) -> None:
    """Remove what was not used for long or is too much, and what builds left that were killed."""
    from toolkit import cache as caches
    from toolkit import hashes

    limit = amount("--max-size", max_size, amounts.DISK_BYTES, example="200GB")
    age_s = amount("--older-than", older_than, amounts.TIME_S, example="30d")
    root, _ = _kept()
    gone = caches.collect(root, now_s=time.time(), max_bytes=limit, older_than_s=age_s) if root else ()
    hashes.forget(before_s=time.time() - (age_s or HASHES_KEPT_S))
    _say_removed(list(gone), as_json=as_json)


def _kept() -> tuple[Path | None, list[Entry]]:
    from toolkit import cache as caches

    root = caches.root()
    return root, caches.entries(root) if root else []


def _named(kept: list[Entry], key: str) -> list[Entry]:
    found = [entry for entry in kept if entry.key.startswith(key)]
    if not found:
        raise UnknownName("cache entry", key, [entry.key for entry in kept], command="trtk cache ls")
    return found


def _row(entry: Entry) -> list[Any]:
    about = entry.about
    used = time.strftime("%Y-%m-%d", time.localtime(entry.used_at_s))
    sizes = [f"{size / 1e6:.1f} MB" for size in (entry.size_bytes, entry.freed_bytes)]
    return [
        entry.key[:SHOWN_DIGITS],
        entry.kind.removesuffix("s"),
        about.get("model"),
        about.get("quant"),
        about.get("gpu"),
        *sizes,
        used,
    ]


def _say_removed(gone: list[Entry], *, as_json: bool) -> None:
    freed = sum(entry.freed_bytes for entry in gone)
    if as_json:
        output.document({"removed": [to_json(entry) for entry in gone], "freed_bytes": freed})
    else:
        output.text(f"Removed {len(gone)} {'entry' if len(gone) == 1 else 'entries'}, freeing {freed / 1e6:.1f} MB.")
