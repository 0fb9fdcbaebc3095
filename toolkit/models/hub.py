"""Models from the Hugging Face hub: pinned to a commit, safetensors only, never running their code."""

from __future__ import annotations

from typing import Any

from toolkit.errors import MissingError, UsageError
from toolkit.models import need_safetensors
from toolkit.specs import ModelSource

WANTED = ("config.json", "generation_config.json", "tokenizer*.json", "chat_template.*", "*.safetensors*")
#: Copies of the weights in other layouts that some repositories carry beside the usual one.
UNWANTED = ("original/*", "consolidated*")


def fetch(name: str) -> ModelSource:
    """Return the local snapshot of `org/name[@revision]`, downloading what is missing."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingError("huggingface_hub is not installed here.", hint="pip install 'trtk[cpu]'") from error
    repo, _, revision = name.partition("@")
    commit = _commit(huggingface_hub, repo, revision or None)
    folder = _asked(
        lambda: huggingface_hub.snapshot_download(
            repo, revision=commit, allow_patterns=list(WANTED), ignore_patterns=list(UNWANTED)
        ),
        repo,
    )
    return ModelSource(name=name, path=str(folder), revision=commit)


def _commit(hub: Any, repo: str, revision: str | None) -> str:
    """Resolve a branch or tag to the commit that will be recorded, and refuse a repository without safetensors."""
    from huggingface_hub.constants import HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return revision or "main"
    info = _asked(lambda: hub.model_info(repo, revision=revision), repo)
    need_safetensors(repo, [file.rfilename for file in info.siblings or ()])
    return str(info.sha)


def _asked(question: Any, repo: str) -> Any:
    """Ask the hub; turn its refusals into sentences."""
    from huggingface_hub import errors

    try:
        return question()
    except errors.GatedRepoError as error:
        raise MissingError(
            f"{repo} is gated: its owner must let you in.",
            hint=f"Accept the terms at https://huggingface.co/{repo}, then set HF_TOKEN.",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UsageError(f"{repo} has no such revision.", hint="Give a branch, tag or commit after @.") from error
    except errors.RepositoryNotFoundError as error:
        raise UsageError(
            f"The hub has no model {repo}, or it is private.", hint="Check the name; for a private one set HF_TOKEN."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise MissingError(
            f"{repo} is not in the local cache, and the hub cannot be reached.",
            hint="Check the network, or give a local Hugging Face folder.",
        ) from error
    except (OSError, errors.HfHubHTTPError) as error:
        raise MissingError(f"The hub did not answer for {repo}: {error}", hint="Try again later.") from error
