"""Plans to compile, checkpoints that tell the compiler how to behave, and an image that has it."""

import dataclasses
import json
import os
import re
import sys
from pathlib import Path

import pytest

from tests.containers.images import image
from tests.plan.test_plan import LLAMA_8B, planned
from toolkit.engine.builder import BuildJob
from toolkit.releases.contents import build_tool_of
from toolkit.specs import to_json
from toolkit.specs.machine import BuildHost, LocalGpu

CARD = LocalGpu(uuid="GPU-6f1e0a2b-stand-in", title="NVIDIA RTX A4500", name="a4500", sm=86, memory_total_mib=20470)
OTHER = LocalGpu(uuid="GPU-77aa0000-stand-in", title="NVIDIA L4", name="l4", sm=89, memory_total_mib=23034)
SOURCE = Path(__file__).with_name("trtllm_build_stand_in.py")
#: Nothing of CUDA is asked of the stand-in, and most of its life it is small.
MEMORY_BYTES = 96 << 20


def plan_for(builder: str, **asked):
    """Return a plan for an A4500 that this builder is to compile."""
    made = planned("a4500", "int4", LLAMA_8B, max_seq_len=2048, max_batch_size=8, **asked)
    return dataclasses.replace(made, builder=builder)


def folder_of(path: Path, behaviour: dict) -> Path:
    """Make a build folder whose checkpoint says how the compiler behaves."""
    (path / "checkpoint").mkdir(parents=True)
    (path / "checkpoint" / "config.json").write_text("{}")
    (path / "checkpoint" / "behaviour.json").write_text(json.dumps(behaviour))
    return path


def job_of(folder: Path, **changes) -> BuildJob:
    """Return the job of a folder on a machine with one A4500 and one L4."""
    host = BuildHost(gpus=(OTHER, CARD))
    asked = {"host": host, "timing_caches": folder.parent / "timing", "memory_bytes": MEMORY_BYTES, **changes}
    return BuildJob(folder=folder, **asked)


def files_of_compiler(release) -> dict[str, str]:
    """Return the stand-in and its flags, which are exactly those of a release."""
    flags = to_json(build_tool_of(release).flags)
    return {
        "trtllm-build": SOURCE.read_text().replace("@VERSION@", release.tensorrt_llm),
        "flags.json": json.dumps(flags),
    }


def compiler_image(client, release, *, does: str = "succeed") -> str:
    """Return an image whose trtllm-build is the stand-in of a release."""
    lines = f"""
COPY trtllm-build flags.json /opt/trtllm/
ENV PATH=/opt/trtllm:/usr/local/bin:/bin BEHAVIOUR='{{"do": "{does}"}}'
"""
    return image(client, f"trtk-test/trtllm:{release.tensorrt_llm}-{does}", lines, files_of_compiler(release))


def local_compiler(folder: Path, release) -> dict[str, str]:
    """Put the stand-in and its package's metadata into a folder; return what a process needs to find both."""
    site = folder / f"tensorrt_llm-{release.tensorrt_llm}.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tensorrt_llm\nVersion: {release.tensorrt_llm}\n")
    for name, text in files_of_compiler(release).items():
        (folder / name).write_text(text.replace("#!/usr/local/bin/python3", f"#!{sys.executable}"))
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(folder)}


def need_gpus_handed_out(client, image: str) -> None:
    """Skip where the daemon gives containers no GPU, or looks for this one: a hook that does neither stands in."""
    import docker

    request = docker.types.DeviceRequest(device_ids=[CARD.uuid], capabilities=[["gpu"]])
    try:
        client.containers.run(
            image, ["sh", "-c", "exit 0"], network_mode="none", device_requests=[request], remove=True
        )
    except docker.errors.APIError as error:
        pytest.skip(f"this daemon hands out no stand-in GPU: {error.explanation}")


def seen_in(log: Path) -> dict:
    """Return what the compiler said it saw."""
    return json.loads(re.search(r"^SEEN (.*)$", log.read_text(), re.MULTILINE)[1])
