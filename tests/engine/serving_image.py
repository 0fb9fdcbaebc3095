"""A stand-in for NVIDIA's serving image: the programs on PATH and the packages that a bundle's start asks for.

Each program keeps to its contract: nvidia-smi answers --query-gpu as CSV; trtllm-build takes documented flags only and
leaves config.json with its version and one engine a rank; tritonserver and mpirun say how they were called.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

NVIDIA_SMI = """#!/bin/sh
[ "$*" = "--query-gpu=compute_cap,memory.total,name --format=csv,noheader,nounits" ] || exit 2
cat "$IMAGE/gpus.csv"
"""
TRTLLM_BUILD = """#!{python}
import argparse, json, os, pathlib, sys, time
image = pathlib.Path(os.environ["IMAGE"])
parser = argparse.ArgumentParser(allow_abbrev=False)
for flag in ("checkpoint_dir", "output_dir", "input_timing_cache", "output_timing_cache", "max_batch_size",
             "max_seq_len", "max_num_tokens", "max_beam_width", "gpt_attention_plugin", "gemm_plugin", "kv_cache_type",
             "remove_input_padding", "context_fmha", "use_paged_context_fmha", "use_fp8_context_fmha", "workers",
             "opt_num_tokens", "tokens_per_block", "use_fused_mlp", "multiple_profiles", "reduce_fusion", "moe_plugin",
             "logits_dtype", "user_buffer", "lora_plugin", "fp8_rowwise_gemm_plugin", "profiling_verbosity"):
    parser.add_argument("--" + flag)
asked = parser.parse_args()
with (image / "builds.log").open("a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
print("[TRT-LLM] building", flush=True)
checkpoint, output = pathlib.Path(asked.checkpoint_dir), pathlib.Path(asked.output_dir)
config = json.loads((checkpoint / "config.json").read_text())
(output / "rank0.engine").write_bytes(b"half")
(image / "building").write_text(str(os.getpid()))
behaviour = (image / "behaviour").read_text() if (image / "behaviour").exists() else "succeed"
if behaviour == "hang":
    time.sleep(600)
if behaviour == "fail":
    sys.exit("[TRT] [E] no implementation of the node")
if behaviour == "slow":
    time.sleep(1.5)
if behaviour == "fill the disk":
    with (output / "rank0.engine").open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 20))
if behaviour != "leave nothing":
    for rank in range(config["mapping"]["world_size"]):
        content = "engine of " + (image / "gpus.csv").read_text().split(",")[0]
        (output / f"rank{{rank}}.engine").write_text(content)
    (output / "config.json").write_text(json.dumps({{"version": "{version}", "pretrained_config": config}}))
old = pathlib.Path(asked.input_timing_cache)
pathlib.Path(asked.output_timing_cache).write_text((old.read_text() if old.exists() else "") + "timed;")
"""
#: Stand for the programs that serve: they say how they were called and what the link points to.
SERVER = """#!{python}
import json, os, pathlib, sys
link = pathlib.Path(os.environ["IMAGE"]) / "run" / "engine"
engine = str(link.resolve()) if link.is_symlink() else None
line, orchestrator = [pathlib.Path(sys.argv[0]).name, *sys.argv[1:]], os.environ.get("TRTLLM_ORCHESTRATOR")
print(json.dumps({{"line": line, "engine": engine, "orchestrator": orchestrator}}))
"""


class Image:
    """Programs and packages in a folder; what the programs do is told through files in it."""

    def __init__(self, folder: Path, *, tensorrt_llm="1.2.1", tensorrt="10.14.1.48") -> None:
        self.folder = folder
        programs, packages = folder / "bin", folder / "packages"
        programs.mkdir(parents=True)
        made = {
            "nvidia-smi": NVIDIA_SMI,
            "trtllm-build": TRTLLM_BUILD.format(python=sys.executable, version=tensorrt_llm),
            "tritonserver": SERVER.format(python=sys.executable),
            "mpirun": SERVER.format(python=sys.executable),
        }
        for name, text in made.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        for name, version in {"tensorrt_llm": tensorrt_llm, "tensorrt": tensorrt}.items():
            info = packages / f"{name}-{version}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        self.set_gpus("8.6, 20470, NVIDIA RTX A4500")

    def set_gpus(self, *rows: str) -> None:
        (self.folder / "gpus.csv").write_text("".join(f"{row}\n" for row in rows))

    def behave(self, how: str) -> None:
        (self.folder / "behaviour").write_text(how)

    @property
    def builds(self) -> list[list[str]]:
        log = self.folder / "builds.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []

    def popen(self, bundle: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen:
        """Start a bundle as a container does."""
        own = {
            "IMAGE": str(self.folder),
            "PATH": f"{self.folder / 'bin'}:{Path(sys.executable).parent}:/usr/bin:/bin",
            "PYTHONPATH": str(self.folder / "packages"),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
            **(environment or {}),
        }
        line = [str(bundle / "start.py"), "--run-dir", str(self.folder / "run"), *arguments]
        return subprocess.Popen(line, env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def start(
        self, bundle: Path, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> tuple[int, str, str]:
        """Start a bundle and wait for its end; return exit code, stdout and stderr."""
        process = self.popen(bundle, *arguments, environment=environment)
        out, said = process.communicate(timeout=60)
        return process.returncode, out, said
