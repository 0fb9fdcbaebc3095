"""Text of a hub data set: `hf:NAME[@revision][:split][:column]`, pinned to a commit; files only, no code of theirs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import MissingError, UsageError
from toolkit.files import disk_errors_named, need_free_bytes
from toolkit.models.hub import ANSWER_TIMEOUT_S, refusals_named

PREFIX = "hf:"
DEFAULT_SPLIT = "train"
#: Kinds of data files, first those that need no further package.
KINDS = (".jsonl", ".jsonl.gz", ".json.gz", ".txt", ".parquet")
COMMIT = re.compile(r"[0-9a-f]{40}")
KIND_OF_REPO = "dataset"


@dataclass(frozen=True, kw_only=True)
class HubText:
    """Which text of which data set; empty strings where nothing was said."""

    repo: str
    revision: str = ""
    split: str = ""
    column: str = ""

    def __str__(self) -> str:
        return f"{PREFIX}{self.repo}@{self.revision}:{self.split}:{self.column}"


def parse(source: str) -> HubText:
    """Return what `hf:NAME[@revision][:split][:column]` says."""
    name, *rest = source.removeprefix(PREFIX).split(":")
    repo, _, revision = name.partition("@")
    if not repo or len(rest) > 2:
        raise UsageError(f"{source!r} names no hub data set.", hint="--calib hf:NAME[@revision][:split][:column]")
    split, column = (*rest, "", "")[:2]
    return HubText(repo=repo, revision=revision, split=split, column=column)


def pinned(source: str) -> str:
    """Return the same text with its commit: what a name and a branch mean today is not what they mean tomorrow."""
    text = parse(source)
    if COMMIT.fullmatch(text.revision):
        return str(text)
    hub = _client()
    with refusals_named(text.repo, text.revision, kind="data set"):
        info = hub.HfApi().dataset_info(text.repo, revision=text.revision or None, timeout=ANSWER_TIMEOUT_S)
    chosen(text, [file.rfilename for file in info.siblings or ()])
    return str(HubText(repo=text.repo, revision=str(info.sha), split=text.split, column=text.column))


def files(source: str) -> Iterator[Path]:
    """Yield the data files of a pinned text, fetching each only when it is asked for."""
    text, hub = parse(source), _client()
    with refusals_named(text.repo, text.revision, kind="data set"):
        names, sizes = _listed(hub, text)
    cache = Path(hub.constants.HF_HUB_CACHE)
    for name in names:
        with refusals_named(text.repo, text.revision, kind="data set"):
            found = hub.try_to_load_from_cache(text.repo, name, revision=text.revision, repo_type=KIND_OF_REPO)
            if not isinstance(found, str):
                need_free_bytes(cache, sizes.get(name, 0), what=f"The file {name} of {text.repo}")
                with disk_errors_named(cache):
                    found = hub.hf_hub_download(text.repo, name, revision=text.revision, repo_type=KIND_OF_REPO)
        yield Path(found)


def _listed(hub: Any, text: HubText) -> tuple[list[str], dict[str, int]]:
    """Return the data files of a text, and the sizes of all files; offline, those that are in the cache."""
    if hub.constants.HF_HUB_OFFLINE:
        found = hub.snapshot_download(text.repo, revision=text.revision, repo_type=KIND_OF_REPO, local_files_only=True)
        names = [str(path.relative_to(found)) for path in Path(found).rglob("*") if path.is_file()]
        return chosen(text, names), {}
    info = hub.HfApi().dataset_info(text.repo, revision=text.revision, files_metadata=True, timeout=ANSWER_TIMEOUT_S)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    return chosen(text, sizes), sizes


def chosen(text: HubText, names: Iterable[str]) -> list[str]:
    """Return the data files of a split, in order; raises UsageError when there are none, or of several subsets."""
    data = {kind: sorted(name for name in names if name.endswith(kind)) for kind in KINDS}
    split = text.split or DEFAULT_SPLIT
    # A file belongs to a split by a whole word of its path: data/train-00000-of-00002.parquet, en/train/0.parquet.
    of_split = re.compile(rf"(^|[/_.-]){re.escape(split)}([-_./]|$)")
    for found in data.values():
        matching = [name for name in found if of_split.search(name)]
        folders = sorted({str(Path(name).parent) for name in matching})
        if len(folders) > 1:
            raise UsageError(
                f"{text.repo} has several subsets with the split {split!r}: {', '.join(folders[:8])}.",
                hint=f"Name one: --calib {PREFIX}{text.repo}:{folders[0]}/{split}",
            )
        if matching:
            return matching
    everything = sorted(name for found in data.values() for name in found)
    if not text.split and len(everything) == 1:
        return everything
    if not everything:
        raise UsageError(
            f"{text.repo} holds no {', '.join(KINDS)} file.",
            hint=f"The hub may have converted it: --calib {PREFIX}{text.repo}@refs/convert/parquet",
        )
    raise UsageError(
        f"{text.repo} has no file of the split {split!r}; it has {', '.join(everything[:8])}.",
        hint=f"Name a split or a path: --calib {PREFIX}{text.repo}:test",
    )


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingError("huggingface_hub is not installed here.", hint="pip install 'trtk[cpu]'") from error
    return huggingface_hub
