"""What the programs inside a release accept, by TensorRT-LLM's line: one TOML file each."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any, TypeVar

from toolkit.registry import toml_document
from toolkit.specs import BuildFlag, BuildTool, LlmApi, Release, from_json, to_json

FOLDER = Path(__file__).parent
N = TypeVar("N")


def line_of(release: Release) -> str:
    """Return the line of a release's TensorRT-LLM: 1.2 for 1.2.1, 1.0 for 1.0.3.2510."""
    return ".".join(release.tensorrt_llm.split(".")[:2])


def build_tool_of(release: Release) -> BuildTool | None:
    """Return what trtllm-build accepts in a release; None where trtk does not know, or it is gone."""
    return _build_tools().get(line_of(release))


def llm_api_of(release: Release) -> LlmApi | None:
    """Return what the LLM API's YAML may say in a release; None where trtk does not use its LLM API."""
    return _llm_apis().get(line_of(release))


@functools.cache
def _build_tools() -> dict[str, BuildTool]:
    return {path.stem: build_tool(path) for path in (FOLDER / "trtllm_build").glob("*.toml")}


def build_tool(path: Path) -> BuildTool:
    """Return the trtllm-build that a file describes: its own flags, and those of what it is based on."""
    document = toml_document(path)
    flags = document.get("flags", {})
    for content in flags.values():
        _need_known_keys(path, BuildFlag, content)
    base = document.pop("based_on", None)
    inherited = to_json(build_tool(path.with_name(f"{base}.toml")).flags) if base else {}
    return _noun(path, BuildTool, {**document, "flags": {**inherited, **flags}})


@functools.cache
def _llm_apis() -> dict[str, LlmApi]:
    return {path.stem: _noun(path, LlmApi, toml_document(path)) for path in (FOLDER / "llm_api").glob("*.toml")}


def _noun(path: Path, kind: type[N], document: dict[str, Any]) -> N:
    _need_known_keys(path, kind, document)
    return from_json(kind, document)


def _need_known_keys(path: Path, kind: type, document: dict[str, Any]) -> None:
    if unknown := document.keys() - {field.name for field in dataclasses.fields(kind)}:
        raise ValueError(f"{path} has keys that {kind.__name__} does not have: {', '.join(sorted(unknown))}")
