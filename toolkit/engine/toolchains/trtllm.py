"""Checkpoint → TensorRT engine: the exact trtllm-build command, which a builder runs on the target in its own image."""

from __future__ import annotations

from pathlib import Path

from toolkit.engine.toolchain import Toolchain
from toolkit.specs import BuildPlan, Progress


def command(plan: BuildPlan, *, checkpoint: str, output: str, timing_cache: str) -> list[str]:
    """Return the trtllm-build command line of a plan; the timing cache is read where it is there, and written."""
    line = ["trtllm-build", "--checkpoint_dir", checkpoint, "--output_dir", output]
    line += ["--input_timing_cache", timing_cache, "--output_timing_cache", timing_cache]
    for flag in plan.build_flags:
        line += [f"--{flag.name}", flag.value]
    return line


def leave_to_the_target(plan: BuildPlan, folder: Path, progress: Progress) -> None:
    """Compile nothing: an engine is bound to the GPU that it is compiled on, and the bundle's start.py does it there."""


TOOLCHAIN = Toolchain(name="trtllm", kind="trtllm", needs_builder=True, compile=leave_to_the_target, versions=dict)
