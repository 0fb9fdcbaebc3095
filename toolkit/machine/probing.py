"""What is inside a serving image against what trtk knows about its release: pure, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from toolkit.machine.checks import FAIL, OK, WARN, Check
from toolkit.machine.config_text import names_in
from toolkit.specs import BuildTool, Release

#: Read by NVIDIA's C++ backend; the other models of a repository are trtk's own.
ENGINE_MODEL = "tensorrt_llm"
FLAG = re.compile(r"(?<![\w-])--([A-Za-z][\w-]*)")
#: Every argparse program has it.
NOT_A_FLAG = {"help"}
SHOWN = 12
SETTLED = "Tell the makers of trtk, with the image's name; until then use the release that `trtk releases` marks."


@dataclass(frozen=True, kw_only=True)
class Contents:
    """What was found in an image; empty where it could not be read."""

    configs: Mapping[str, str] = field(default_factory=dict)  # of the backend's own models, by name
    builder_help: str = ""  # trtllm-build --help
    builder_fault: str = ""  # why there is none
    tensorrt_llm: str = ""
    tensorrt: str = ""


def compare(
    contents: Contents, *, release: Release, tool: BuildTool | None, rendered: Mapping[str, str]
) -> list[Check]:
    """Return every line; RENDERED are the config.pbtxt that trtk writes for the release, by model."""
    lines = list(_versions(contents, release))
    for model in sorted(rendered):
        if model in contents.configs:
            lines += _model(model, contents.configs[model], rendered[model])
        else:
            found = f"the image has no all_models/inflight_batcher_llm/{model}/config.pbtxt"
            lines.append(Check(name=f"model {model}", status=WARN, found=found, hint="Not compared."))
    return [*lines, *_builder(contents, tool)]


def _versions(contents: Contents, release: Release) -> Iterable[Check]:
    pairs = (
        ("TensorRT-LLM", contents.tensorrt_llm, release.tensorrt_llm),
        ("TensorRT", contents.tensorrt, release.tensorrt),
    )
    for name, found, known in pairs:
        if not found:
            yield Check(name=name, status=WARN, found="not found in the image", hint="Not compared.")
        elif _numbers(found) == _numbers(known):
            yield Check(name=name, status=OK, found=found)
        else:
            said = f"{found}; release {release.name} has {known}"
            yield Check(name=name, status=FAIL, found=said, hint=f"Compare it with its own --release. {SETTLED}")


def _numbers(version: str) -> str:
    """Return 10.14.1.48 of 10.14.1.48.post1: a packaging's own number says nothing about the contents."""
    found = re.match(r"\d+(\.\d+)*", version)
    return found[0] if found else version


def _model(model: str, theirs: str, ours: str) -> Iterable[Check]:
    image, trtk = names_in(theirs), names_in(ours)
    is_engine = model == ENGINE_MODEL
    kinds = [("inputs", image.inputs, trtk.inputs), ("outputs", image.outputs, trtk.outputs)]
    if is_engine:
        kinds.append(("parameters", image.parameters, trtk.parameters))
    for kind, there, here in kinds:
        name = f"{model} {kind}"
        unread = sorted(here - there)
        unsaid = sorted(there - here) if kind != "parameters" else []  # unset ones have their default
        if unread:
            found = f"trtk writes what the image does not know: {_listed(unread)}"
            yield Check(name=name, status=FAIL if is_engine else WARN, found=found, hint=SETTLED)
        if unsaid:
            found = f"the image has more: {_listed(unsaid)}"
            yield Check(name=f"more {name}", status=WARN, found=found, hint="Clients cannot use them through trtk.")
        if not unread and not unsaid:
            yield Check(name=name, status=OK, found=f"{len(here)}, all known to the image")


def _builder(contents: Contents, tool: BuildTool | None) -> Iterable[Check]:
    name = "trtllm-build --help"
    if tool is None:
        return [Check(name=name, status=OK, found="trtk does not use this release's trtllm-build")]
    if not contents.builder_help:
        hint = "Not compared. Importing TensorRT-LLM needs the CUDA driver: probe where a GPU is."
        return [Check(name=name, status=WARN, found=contents.builder_fault or "not in the image", hint=hint)]
    there = set(FLAG.findall(contents.builder_help)) - NOT_A_FLAG
    here = set(tool.names())
    lines = []
    if gone := sorted(here - there):
        lines.append(Check(name=name, status=FAIL, found=f"the image does not take: {_listed(gone)}", hint=SETTLED))
    if new := sorted(there - here):
        found = f"the image takes more: {_listed(new)}"
        lines.append(Check(name=f"more of {name}", status=WARN, found=found, hint="trtk does not set them."))
    return lines or [Check(name=name, status=OK, found=f"{len(here)} names, the same in the image")]


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
