"""Models from the Hugging Face hub: pinned to a commit, safetensors only, never running their code."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from toolkit.errors import BuildError, MissingError, UsageError
from toolkit.files import disk_errors_named, need_free_bytes
from toolkit.hashes import sha256_of
from toolkit.models import hub_shards, need_safetensors
from toolkit.specs import ModelSource, Progress, no_progress

WANTED = (
    "config.json",
    "generation_config.json",
    "*quant*config.json",  # how a quantized checkpoint was made, where config.json does not say it
    "tokenizer*.json",
    "chat_template.*",
    "*.safetensors*",
)
#: Copies of the weights in other layouts that some repositories carry beside the usual one.
UNWANTED = ("*/*", "consolidated*")
STEP = "Fetch from the hub"
ANSWER_TIMEOUT_S = 30.0
SHA256 = re.compile(r"[0-9a-f]{64}")


def fetch(name: str, report: Progress = no_progress) -> ModelSource:
    """Return the local snapshot of `org/name[@revision]`, downloading what is missing."""
    try:
        import huggingface_hub
        from huggingface_hub.constants import HF_HUB_OFFLINE
    except ImportError as error:
        raise MissingError("huggingface_hub is not installed here.", hint="pip install 'trtk[cpu]'") from error
    repo, _, revision = name.partition("@")
    with refusals_named(repo, revision):
        if HF_HUB_OFFLINE:
            folder = _snapshot(huggingface_hub, repo, revision or None, local_files_only=True)
            need_safetensors(repo, [path.name for path in folder.iterdir()])
        else:
            folder = _downloaded(huggingface_hub, repo, revision or None, report)
    need_whole(repo, folder)
    return ModelSource(name=name, path=str(folder), revision=folder.name)


def _downloaded(hub: Any, repo: str, revision: str | None, report: Progress) -> Path:
    """Refuse what cannot be used, then fetch what is not in the cache; a branch or tag becomes its commit."""
    info = hub.model_info(repo, revision=revision, files_metadata=True, timeout=ANSWER_TIMEOUT_S)
    sizes = {file.rfilename: int(file.size or 0) for file in info.siblings or ()}
    need_safetensors(repo, [file for file in sizes if "safetensors" not in file or not _matches(file, UNWANTED)])
    cache = Path(hub.constants.HF_HUB_CACHE)
    wanted = {
        file: size
        for file, size in sizes.items()
        if _matches(file, WANTED)
        and not _matches(file, UNWANTED)
        and not isinstance(hub.try_to_load_from_cache(repo, file, revision=info.sha), str)
    }
    missing = sum(wanted.values())
    need_free_bytes(cache, missing, what=f"The download of {repo}")
    counter = hub_shards.Counter(lambda done: report(STEP, min(done, missing), max(missing, 1)))
    large = [file for file, size in wanted.items() if size >= hub_shards.RESUMED_FROM_BYTES]
    with disk_errors_named(cache):
        hub_shards.fetch(hub, repo, large, commit=info.sha, counter=counter)
        # By the name that was asked for: the cache then remembers its commit, for the next time without a network.
        folder = _snapshot(hub, repo, revision, tqdm_class=_byte_counter(counter))
    report(STEP, max(missing, 1), max(missing, 1))
    return folder


def need_whole(repo: str, folder: Path) -> None:
    """Raise BuildError for a weight file that is not what the hub's cache says it is, and take it out of the cache.

    The cache names the content of a large file by its sha256, and the hub's client checks no more than the size.
    """
    for path in sorted(folder.iterdir()):
        content = path.resolve()
        if not SHA256.fullmatch(content.name) or sha256_of(content) == content.name:
            continue
        path.unlink()
        content.unlink()
        raise BuildError(
            f"{path.name} of {repo} is damaged: its sha256 is not {content.name[:16]}…, which the hub names.",
            hint="It is taken out of the cache: the same command fetches it again.",
        )


def _snapshot(hub: Any, repo: str, revision: str | None, **options: Any) -> Path:
    """Return the snapshot folder, which the hub's cache names after the commit."""
    found = hub.snapshot_download(
        repo, revision=revision, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED), **options
    )
    return Path(found)


def _matches(file: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatch(file, pattern) for pattern in patterns)


def _byte_counter(counter: hub_shards.Counter) -> Any:
    """Return a tqdm class that draws nothing and tells COUNTER about the bars that count bytes."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped,unused-ignore]

    class ByteCounter(tqdm):  # type: ignore[misc,type-arg,unused-ignore]
        def __init__(self, *args: Any, **options: Any) -> None:
            self.is_bytes = options.get("unit") == "B"
            options.pop("name", None)
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self.is_bytes:
                counter.add(n or 0)
            return None

    return ByteCounter


@contextmanager
def refusals_named(repo: str, revision: str, *, kind: str = "model") -> Iterator[None]:
    """Turn the hub's refusals, and its silence, into sentences about a model or a data set."""
    from huggingface_hub import constants, errors

    try:
        yield
    except errors.HFValidationError as error:
        raise UsageError(f"{repo!r} is no hub id: {error}", hint="It is org/name[@revision].") from error
    except errors.GatedRepoError as error:
        raise MissingError(
            f"{repo} is gated: its owner must let you in.",
            hint=f"Accept the terms at {constants.ENDPOINT}/{'' if kind == 'model' else 'datasets/'}{repo}, "
            "then set HF_TOKEN.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(
            f"{repo} has no revision {revision!r}.", hint="Give a branch, tag or commit after @, or nothing."
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"The hub has no {kind} {repo}, or it is private.", hint="Check the name; for a private one set HF_TOKEN."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise MissingError(
            f"{repo}{'@' * bool(revision)}{revision} is not whole in the local cache, and the hub cannot be asked.",
            hint="Check the network and HF_HUB_OFFLINE, or give a local "
            f"{'Hugging Face folder' if kind == 'model' else 'text file'}.",
        ) from error
    except (OSError, errors.HfHubHTTPError, *_transport_errors()) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise MissingError(
            f"The hub at {constants.ENDPOINT} did not answer for {repo}: {reason}",
            hint=f"Check the network and try again; with HF_HUB_OFFLINE=1 a {kind} that is in the cache is used.",
        ) from error


def _transport_errors() -> tuple[type[Exception], ...]:
    """Return what the hub's client raises on a refused or cut connection: it changed its HTTP library twice."""
    from huggingface_hub.errors import HfHubHTTPError

    return tuple(base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
