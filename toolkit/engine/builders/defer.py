"""Compile nothing here: the bundle compiles its engine on the target, at first start."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.engine.builder import Builder, BuildJob
from toolkit.specs import BuildPlan, Progress
from toolkit.specs.machine import BuildHost


def why_not(plan: BuildPlan, host: BuildHost) -> str | None:  # noqa: ARG001 - every builder's signature
    """A bundle can be made anywhere."""
    return None


def build(plan: BuildPlan, job: BuildJob, progress: Progress) -> Mapping[str, str]:  # noqa: ARG001
    """Leave what the toolchain wrote as it is."""
    return {}


BUILDER = Builder(
    name="defer",
    rank=9,
    reason="the engine is compiled on the target, at first start",
    is_deferred=True,
    why_not=why_not,
    build=build,
)
