"""Checkpoint → TensorRT engine: the exact trtllm-build command, which a builder runs on the target in its own image."""

from __future__ import annotations

from pathlib import Path

from toolkit.engine.toolchain import Toolchain
from toolkit.specs import BuildPlan, Choice, Progress

#: Flags that hang on how cards are linked: left out where a plan is compiled on another kind of card.
OF_THE_LINKS = {"user_buffer"}


def command(plan: BuildPlan, *, checkpoint: str, output: str, timing_cache: str, sm: int | None = None) -> list[str]:
    """Return the trtllm-build command line of a plan, on its own card or on another of SM.

    The timing cache is read where it is there, and written.
    """
    left_out = OF_THE_LINKS if sm not in {None, plan.gpu.sm} else set()
    line = ["trtllm-build", "--checkpoint_dir", checkpoint, "--output_dir", output]
    line += ["--input_timing_cache", timing_cache, "--output_timing_cache", timing_cache]
    for flag in (flag for flag in plan.build_flags if flag.name not in left_out):
        line += [f"--{flag.name}", *_words(flag, checkpoint)]
    return line


def _words(flag: Choice, checkpoint: str) -> list[str]:
    """Return a flag's values: none for a switch, several for a list; adapters lie below the checkpoint."""
    words = flag.value.split()
    return [f"{checkpoint}/{word}" for word in words] if flag.name == "lora_dir" else words


def leave_to_the_target(plan: BuildPlan, folder: Path, progress: Progress) -> None:
    """Compile nothing: an engine is bound to the GPU that it is compiled on, and a builder does it there."""


TOOLCHAIN = Toolchain(name="trtllm", kind="trtllm", needs_builder=True, compile=leave_to_the_target, versions=dict)
