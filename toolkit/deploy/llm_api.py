"""The arguments of TensorRT-LLM's LLM API as YAML, held to those that the release which reads them has."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from toolkit.deploy.names import MANAGER

#: Of Triton's own model.py, which is not there where another server runs the LLM API.
TRITON_GROUP = "triton_config"


def accepted(settings: Mapping[str, Any], known: Collection[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings that a release takes, and the names of those that it would refuse to load with."""
    own = {key: value for key, value in settings.items() if key.partition(".")[0] != TRITON_GROUP}
    return {key: value for key, value in own.items() if key in known}, tuple(sorted(own.keys() - set(known)))


def yaml_of(settings: Mapping[str, Any]) -> str:
    """Return dotted settings as the YAML file that the LLM API reads, in their own order."""
    import yaml

    grouped: dict[str, Any] = {}
    for key, value in settings.items():
        group, _, name = key.partition(".")
        if name:
            grouped.setdefault(group, {})[name] = value
        else:
            grouped[key] = value
    text: str = yaml.safe_dump(grouped, sort_keys=False, default_flow_style=False, allow_unicode=True)
    return text


def served_name(model: str) -> str:
    """Return what clients ask for: a model of the hub by its id, a folder by its name."""
    is_folder = model.startswith(("/", ".", "~"))
    return (model.rstrip("/").rpartition("/")[2] if is_folder else model) or MANAGER
