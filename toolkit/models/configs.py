"""A model's shape without its weights: config.json alone, from a file, a folder, the hub's cache or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit import models
from toolkit.errors import MissingError, UsageError
from toolkit.specs import ModelSpec

CONFIG = "config.json"
#: The demo model's, so that nothing is fetched to plan it.
DEMO_CONFIG = Path(__file__).parent / "demo_config.json"


def read(name: str) -> ModelSpec:
    """Return the shape of `demo`, of a config.json or its folder, or of `org/name[@revision]`."""
    if name == "demo":
        return models.read_config(DEMO_CONFIG, is_to_plan=True)
    path = Path(name).expanduser()
    if path.is_file():
        return models.read_config(path, is_to_plan=True)
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise UsageError(
                f"{path} holds no {CONFIG}.", hint="Give the folder or the file that says the model's shape."
            )
        return models.read_config(path / CONFIG, is_to_plan=True)
    if name.startswith((".", "/", "~")) or name.count("/") != 1 or name.endswith(".json"):
        raise UsageError(
            f"There is no file or folder {name!r}, and it is no hub id either.",
            hint="MODEL is `demo`, a config.json, a folder with one, or org/name[@revision].",
        )
    return models.read_config(_from_hub(name), is_to_plan=True)


def _from_hub(name: str) -> Path:
    """Return the path of a hub model's config.json: the cached one where the hub cannot be asked."""
    from toolkit.models.hub import ANSWER_TIMEOUT_S, refusals_named

    try:
        import huggingface_hub
    except ImportError as error:
        raise MissingError("huggingface_hub is not installed here.", hint="pip install 'trtk[cpu]'") from error
    repo, _, revision = name.partition("@")
    with refusals_named(repo, revision):
        cached: Any = huggingface_hub.try_to_load_from_cache(repo, CONFIG, revision=revision or None)
        if isinstance(cached, str):
            return Path(cached)
        if not huggingface_hub.constants.HF_HUB_OFFLINE:
            # The download asks five times in half a minute; this asks once.
            address = huggingface_hub.hf_hub_url(repo, CONFIG, revision=revision or None)
            huggingface_hub.get_hf_file_metadata(address, timeout=ANSWER_TIMEOUT_S)
        return Path(huggingface_hub.hf_hub_download(repo, CONFIG, revision=revision or None))
