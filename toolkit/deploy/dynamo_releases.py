"""What each release of NVIDIA Dynamo has inside: dynamo.toml."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit import registry

DATA = Path(__file__).with_name("dynamo.toml")


@dataclass(frozen=True, kw_only=True)
class DynamoRelease:
    """One release: its images, its TensorRT-LLM and the arguments that this takes."""

    name: str
    tensorrt_llm: str
    driver: str  # oldest
    runtime_image: str
    planner_image: str
    llm_api_keys: tuple[str, ...]


@functools.cache
def document() -> Mapping[str, Any]:
    """Return dynamo.toml."""
    return registry.toml_document(DATA)


def default() -> str:
    """Return the newest release that is known."""
    names: list[str] = sorted(document()["releases"], key=lambda name: [int(part) for part in name.split(".")])
    return names[-1]


def get(name: str) -> DynamoRelease:
    """Return the release called NAME."""
    facts = registry.pick(document()["releases"], name, kind="release of Dynamo")
    return DynamoRelease(
        name=name,
        tensorrt_llm=facts["tensorrt_llm"],
        driver=facts["driver"],
        runtime_image=facts["runtime_image"],
        planner_image=facts["planner_image"],
        llm_api_keys=tuple(facts["llm_api_keys"]),
    )


def sku(gpu: str) -> str:
    """Return what Dynamo's profiler calls a card; empty for one that it has no name for."""
    found: str = document()["skus"].get(gpu, "")
    return found
