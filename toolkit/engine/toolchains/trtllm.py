"""Checkpoint → TensorRT engine: the exact trtllm-build command, to be run on the target in its own image."""

from __future__ import annotations

from pathlib import Path

from toolkit.engine.toolchain import CHECKPOINT, ENGINE, Toolchain
from toolkit.files import write_text
from toolkit.specs import BuildPlan, Progress
from toolkit.templating import render

SCRIPT = "build_engine.sh"
STEP = "Write the build command"


def command(plan: BuildPlan, *, folder: str) -> list[str]:
    """Return the trtllm-build command line for a bundle that is mounted at FOLDER."""
    line = ["trtllm-build", "--checkpoint_dir", f"{folder}/{CHECKPOINT}", "--output_dir", f"{folder}/{ENGINE}"]
    for flag in plan.build_flags:
        line += [f"--{flag.name}", flag.value]
    return line


def leave_bundle(plan: BuildPlan, folder: Path, progress: Progress) -> None:
    """Write build_engine.sh: nothing is compiled here, since an engine is bound to the GPU that it is built on."""
    progress(STEP, 0, 1)
    text = render("bundle/build_engine.sh.j2", {"plan": plan, "command": command(plan, folder="$bundle")})
    write_text(folder / SCRIPT, text)
    (folder / SCRIPT).chmod(0o755)
    progress(STEP, 1, 1)


TOOLCHAIN = Toolchain(name="trtllm", kind="trtllm", is_deferred=True, compile=leave_bundle, versions=dict)
