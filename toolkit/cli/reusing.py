"""What an earlier build made of the same inputs is taken from the cache instead of being made again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolkit import cache
from toolkit.cache.placing import place_all
from toolkit.cli import output
from toolkit.engine import CHECKPOINT, ENGINE
from toolkit.engine.builder import builder
from toolkit.specs import BuildPlan, ConversionPlan, ModelSource, Progress, no_progress, to_json


class Reuse:
    """The cache as one build sees it; `taken` names what did not have to be made."""

    def __init__(
        self, plan: BuildPlan, source: ModelSource, *, image: str = "", progress: Progress = no_progress
    ) -> None:
        self._plan, self._source = plan, source
        self._store = cache.Store(cache.root())
        self._checkpoint_key = checkpoint_key(plan.conversion, source, progress=progress)
        self.build_id = build_key(plan, self._checkpoint_key, image=image)
        self.taken: list[str] = []
        self._earlier: Path | None = None
        self._earlier_versions: Mapping[str, str] = {}

    def take_from(self, folder: Path, versions: Mapping[str, str]) -> None:
        """Take everything from FOLDER, an earlier build of the same that is only to be served in another way."""
        self._earlier, self._earlier_versions = folder, versions
        output.note(f"{folder} is the same build; what serves it is written again, as this version of trtk writes it.")

    def checkpoint(self, folder: Path, make: Callable[[], object]) -> None:
        """Take the checkpoint into FOLDER, or let MAKE make it there and keep it."""
        key = self._checkpoint_key
        if self._earlier:
            self._place(CHECKPOINT, folder)
            return
        with self._store.making(cache.CHECKPOINTS, key, on_wait=_say_waiting):
            if self._store.take(cache.CHECKPOINTS, key, folder):
                self._say("checkpoint", key)
                return
            make()
            self._store.put(cache.CHECKPOINTS, key, folder, about=self._about())

    def engine(self, folder: Path, make: Callable[[], Mapping[str, str]]) -> Mapping[str, str]:
        """Take the compiled engine into FOLDER, or let MAKE make it there and keep it; return the tools' versions."""
        is_compiled_here = self._plan.toolchain == "openvino" or (
            self._plan.toolchain == "trtllm" and not builder(self._plan.builder).is_deferred
        )
        if not is_compiled_here:
            return make()
        if self._earlier:
            self._place(ENGINE, folder)
            return self._earlier_versions
        with self._store.making(cache.ENGINES, self.build_id, on_wait=_say_waiting):
            if self._store.take(cache.ENGINES, self.build_id, folder):
                self._say("engine", self.build_id)
                versions: Mapping[str, str] = self._store.about(cache.ENGINES, self.build_id).get("tool_versions", {})
                return versions
            versions = make()
            about = {**self._about(), "tool_versions": dict(versions)}
            self._store.put(cache.ENGINES, self.build_id, folder, about=about)
            return versions

    def _place(self, name: str, folder: Path) -> None:
        assert self._earlier
        place_all(self._earlier / name, folder)
        self.taken.append(name)

    def _say(self, what: str, key: str) -> None:
        self.taken.append(what)
        output.note(f"The {what} is taken from the cache ({key[:12]}): an earlier build made the same.")

    def _about(self) -> dict[str, Any]:
        """Return what `trtk cache ls` shows people."""
        plan = self._plan
        return {"model": self._source.name, "quant": plan.conversion.recipe.name, "gpu": plan.gpu.name}


def _say_waiting() -> None:
    output.note("Another build is making the same; waiting for it.")


def checkpoint_key(plan: ConversionPlan, source: ModelSource, *, progress: Progress = no_progress) -> str:
    """Return the key of a plan's checkpoint: how it is made, and every byte that it is made from."""
    conversion = to_json(plan)
    if plan.calibration and plan.calibration.text_sha256:
        conversion["calibration"]["source"] = "file"  # where it lies does not matter
    return cache.key_of(conversion=conversion, files=cache.sources_of(Path(source.path), progress=progress))


def build_key(plan: BuildPlan, checkpoint: str, *, image: str = "") -> str:
    """Return the key of a build: its checkpoint, what it is compiled for, by what, and with which flags."""
    return cache.key_of(
        checkpoint=checkpoint,
        toolchain=plan.toolchain,
        gpu={"name": plan.gpu.name, "sm": plan.gpu.sm},
        release={"tensorrt_llm": plan.release.tensorrt_llm, "tensorrt": plan.release.tensorrt, "image": image},
        limits=to_json(plan.limits),
        adapters=to_json(plan.adapters),
        flags={flag.name: flag.value for flag in plan.build_flags},
        packages=versions_of(plan.toolchain),
    )


def versions_of(toolchain: str) -> dict[str, str]:
    """Return the versions of the packages that compile here."""
    from toolkit import engine

    return engine.toolchain(toolchain).versions()
