#!/usr/bin/env python3
"""Starts this bundle inside the serving image: checks it, compiles what this GPU still lacks, then becomes Triton."""

import argparse
import os
import signal
import sys
from pathlib import Path

sys.dont_write_bytecode = True  # what lies in a bundle is in its manifest

from first_start import BUNDLE, Refused, document, engines, hashes, machine, ranks, say, triton  # noqa: E402 - after that

#: What `trtk repo` says of a repository.
RECORD = ".trtk-repository.json"
#: What must be whole at every start; weights only where this start reads them.
ALWAYS = ("bundle.json", "start.py", "first_start/", "tokenizer/", "model_repository/")


def main(arguments: list[str] | None = None) -> int:
    """Run; return an exit code, unless this process became Triton."""
    asked = parse(arguments)
    signal.signal(signal.SIGTERM, stop)  # as process 1 of a container it would be deaf to it
    try:
        return run(asked)
    except Refused as refused:
        say(f"Error: {refused}\nHint: {refused.hint}")
        return refused.code
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Return what was asked on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="check the bundle, the image and the GPU, and stop")
    parser.add_argument("--build-only", action="store_true", help="compile what is missing, and stop")
    parser.add_argument("--no-verify", action="store_true", help="do not compare files with manifest.json")
    parser.add_argument(
        "--rank",
        action="store_true",
        help="be one rank of the engine: srun or mpirun starts the others, here or on other nodes",
    )
    parser.add_argument(
        "--gpus", type=int, help="GPUs that must be here, where other nodes have the rest; as many as there are ranks"
    )
    parser.add_argument(
        "--engines",
        type=Path,
        default=Path(os.environ.get("TRTK_ENGINES") or BUNDLE / "engine"),
        help="folder that keeps compiled engines; $TRTK_ENGINES, else engine/ of the bundle",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        default=Path("/tmp/trtk"),
        help="where the link to the engine is made; the repository names /tmp/trtk",
    )
    parser.add_argument("--repository", type=Path, help="another repository of this engine, that `trtk repo` made")
    parser.add_argument("triton", nargs="*", help="further arguments of tritonserver, after --")
    return parser.parse_args(arguments)


def stop(number: int, frame: object) -> None:
    """End as if Ctrl-C was pressed: what is half-made is removed on the way out."""
    del frame
    raise SystemExit(128 + number)


def run(asked: argparse.Namespace) -> int:
    """Do what was asked; return an exit code, unless this process became Triton."""
    files = hashes.records_of(BUNDLE / "manifest.json")
    is_verified = not asked.no_verify
    if is_verified:
        hashes.verify(BUNDLE, files, below=ALWAYS)
        hashes.need_nothing_added(files)
    bundle = document(BUNDLE / "bundle.json")
    machine.need_release(bundle)
    is_engine = bundle["flow"] == "engine"
    rank = ranks.own(bundle) if asked.rank else None
    repository = asked.repository or BUNDLE / "model_repository"
    about = document(repository / RECORD).get("about", {}) if asked.repository else {}
    gpu = machine.need_gpus(bundle, asked.gpus or (1 if asked.rank else about.get("gpus")))
    if is_verified and not is_engine:
        hashes.verify(BUNDLE, files, below=("checkpoint/",))
    if asked.check:
        say(f"This bundle can run here: {gpu.name}, sm_{gpu.sm}, TensorRT-LLM {bundle['tensorrt_llm']}.")
        return 0
    if is_engine:
        engine = engines.ensure(bundle, gpu, asked.engines, files=files, is_verified=is_verified)
        engines.link(engine, asked.run_dir / "engine")
        engines.link(repository, asked.run_dir / "repository")
    if not asked.build_only:
        # The LLM API starts its own ranks.
        world = bundle["world_size"] if is_engine else 1
        gpus = about.get("gpus", world * bundle.get("instances", 1)) if is_engine else 1
        is_orchestrated = is_engine and about.get("is_orchestrated", gpus > world)
        triton.become(triton.Server(repository, world, gpus, is_orchestrated), asked.triton, rank=rank)
    return 0


if __name__ == "__main__":
    sys.exit(main())
