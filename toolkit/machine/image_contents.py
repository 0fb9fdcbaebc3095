"""What is in a serving image: read from a folder that is its root, or asked for in a container of it."""

from __future__ import annotations

import re
from pathlib import Path

from toolkit import containers
from toolkit.containers import ContainerSpec, Daemon
from toolkit.errors import BuildError, UsageError
from toolkit.machine import nvml
from toolkit.machine.probing import Contents
from toolkit.specs import Progress, no_progress

MODELS = "app/all_models/inflight_batcher_llm"
#: Where a root folder keeps what only a running image can say: `trtllm-build --help > trtllm-build.help`.
HELP_FILE = "trtllm-build.help"
PACKAGES = ("tensorrt_llm", "tensorrt")
PART = "=====trtk:"
#: Says everything in one go, each part under a line of its own; a part that fails says nothing.
SCRIPT = f"""
for path in /{MODELS}/*/config.pbtxt; do
  [ -f "$path" ] && echo "{PART}config $path" && cat "$path" && echo
done
echo "{PART}help"
trtllm-build --help 2>&1
echo "{PART}status $?"
for package in {" ".join(PACKAGES)}; do
  echo "{PART}version $package"
  python3 -c "import importlib.metadata as m, sys; print(m.version(sys.argv[1]))" "$package" 2>/dev/null
done
"""
MEMORY_BYTES = 8 << 30
SHM_BYTES = 64 << 20
PIDS = 512
FAULT_LINES = 2


def in_folder(root: Path) -> Contents:
    """Return what lies in an image's root folder; nothing in it is run."""
    configs = {path.parent.name: path.read_text(encoding="utf-8") for path in (root / MODELS).glob("*/config.pbtxt")}
    help_file = root / HELP_FILE
    if not configs and not help_file.is_file():
        raise UsageError(f"{root} holds no {MODELS}.", hint="Give an image, or the folder that is an image's root.")
    found = {name: _version_in(root, name) for name in PACKAGES}
    return Contents(
        configs=configs,
        builder_help=help_file.read_text(encoding="utf-8") if help_file.is_file() else "",
        builder_fault=f"{root} holds no {HELP_FILE}",
        **found,
    )


def _version_in(root: Path, package: str) -> str:
    folders = sorted(root.glob(f"usr/**/*-packages/{package}-*.dist-info"))
    return folders[0].name.removeprefix(f"{package}-").removesuffix(".dist-info") if folders else ""


def in_image(daemon: Daemon, reference: str, *, progress: Progress = no_progress) -> Contents:
    """Return what a container of an image says about itself; it has no network and nothing of this machine."""
    image = containers.need_image(daemon, reference, progress=progress)
    spec = ContainerSpec(
        job=f"probe-{image.image_id.rpartition(':')[2][:12]}",
        image=image.image_id,
        command=("sh", "-c", SCRIPT),
        user="1000:1000",
        working_dir="/tmp",
        mounts=(),
        environment={"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1"},
        tmpfs={"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=1g"},
        memory_bytes=min(MEMORY_BYTES, daemon.memory_bytes),
        pids=PIDS,
        shm_bytes=SHM_BYTES,
        gpu_uuids=tuple(gpu.uuid for gpu in nvml.look().gpus[:1]),  # importing TensorRT-LLM asks for the driver
    )
    lines: list[str] = []
    ended = containers.run(daemon, spec, on_line=lines.append, on_note=lambda _note: None)
    if not any(line.startswith(f"{PART}help") for line in lines):
        said = "".join(f"\n  {line}" for line in lines[-5:])
        raise BuildError(f"A container of {reference} ended with {ended.exit_code} and told nothing.{said}")
    return told("\n".join(lines))


def told(text: str) -> Contents:
    """Return what the script's output says."""
    parts: dict[str, str] = {}
    for part in text.split(PART)[1:]:
        head, _, body = part.partition("\n")
        parts[head.strip()] = body
    configs = {Path(head.split()[1]).parent.name: body for head, body in parts.items() if head.startswith("config ")}
    versions = {name: parts.get(f"version {name}", "").strip() for name in PACKAGES}
    is_helpful = "status 0" in parts
    said = parts.get("help", "")
    fault = " ".join([line for line in said.splitlines() if re.search(r"\w", line)][-FAULT_LINES:])
    return Contents(
        configs=configs, builder_help=said if is_helpful else "", builder_fault="" if is_helpful else fault, **versions
    )
