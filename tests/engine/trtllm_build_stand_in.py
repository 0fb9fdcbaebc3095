#!/usr/local/bin/python3
"""Stands for `trtllm-build`: takes exactly the flags of flags.json, tells what it sees, and behaves as it is told.

The checkpoint's behaviour.json, or $BEHAVIOUR, says how:
{"do": "succeed" | "fail" | "memory" | "hang" | "disk" | "nothing"}.
"""

# ruff: noqa: T201, ARG001 - a program that talks, and does what a table of functions says

import argparse
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "@VERSION@"


def main() -> int:
    asked = parse(json.loads((HERE / "flags.json").read_text()))
    checkpoint, output = Path(asked["checkpoint_dir"]), Path(asked["output_dir"])
    told = checkpoint / "behaviour.json"
    behaviour = json.loads(told.read_text() if told.exists() else os.environ.get("BEHAVIOUR", '{"do": "succeed"}'))
    print("SEEN " + json.dumps(seen(checkpoint, output)), flush=True)
    print(f"[TensorRT-LLM] TensorRT-LLM version: {VERSION}", flush=True)
    cache = Path(asked["input_timing_cache"])
    known = cache.read_text() if cache.exists() else ""
    print(f"[TRT-LLM] [I] timing cache: {known!r}", flush=True)
    (output / "rank0.engine").write_bytes(b"half an engine")
    # The real one is slow here; what happens to it must happen now.
    {"fail": fail, "memory": take_memory, "hang": hang, "disk": fill_disk}.get(behaviour["do"], go_on)(
        behaviour, output
    )
    if behaviour["do"] == "nothing":
        return 0
    for rank in range(behaviour.get("ranks", 1)):
        print("[TRT-LLM] [I] Build TensorRT engine Unnamed Network 0", flush=True)
        print(f"[TRT-LLM] [I] Serializing engine to {output}/rank{rank}.engine...", flush=True)
        (output / f"rank{rank}.engine").write_bytes(b"an engine")
        print("[TRT-LLM] [I] Engine serialized. Total time: 00:00:00", flush=True)
    (output / "config.json").write_text(json.dumps({"version": behaviour.get("version", VERSION)}))
    Path(asked["output_timing_cache"]).write_text(known + "timed;")
    print("[TRT-LLM] [I] Total time of building all engines: 00:00:01", flush=True)
    return 0


def parse(flags: dict[str, dict]) -> dict:
    parser = argparse.ArgumentParser(prog="trtllm-build", allow_abbrev=False)
    for name, flag in flags.items():
        names = [f"--{one}" for one in (name, *flag["aliases"])]
        if flag["kind"] == "switch":
            parser.add_argument(*names, action="store_true")
        else:
            kind = int if flag["kind"] == "integer" else str
            several = {"nargs": "+"} if flag["kind"] in ("paths", "choices") else {}
            parser.add_argument(*names, type=kind, choices=flag["choices"] or None, **several)
    return vars(parser.parse_args())


def seen(checkpoint: Path, output: Path) -> dict:
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    return {
        "argv": sys.argv[1:],
        "uid": os.getuid(),
        "gid": os.getgid(),
        "groups": os.getgroups(),
        "capabilities": status["CapBnd"].strip(),
        "no_new_privileges": status["NoNewPrivs"].strip(),
        "network": sorted(line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]),
        "gpus": os.environ.get("NVIDIA_VISIBLE_DEVICES") or os.environ.get("CUDA_VISIBLE_DEVICES"),
        "shm_bytes": size_of("/dev/shm"),
        "stack": resource.getrlimit(resource.RLIMIT_STACK)[0],
        "home": os.environ["HOME"],
        "user": os.environ.get("USER"),
        "can_write": {str(path): can_write(path) for path in (Path("/"), Path("/tmp"), checkpoint, output)},
    }


def size_of(path: str) -> int:
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def can_write(folder: Path) -> bool:
    probe = folder / f".probe-{os.getpid()}"
    try:
        probe.write_bytes(b"")
    except OSError:
        return False
    probe.unlink()
    return True


def fail(behaviour: dict, output: Path) -> None:
    print("\n".join(behaviour["say"]), file=sys.stderr)
    sys.exit(behaviour.get("code", 1))


def take_memory(behaviour: dict, output: Path) -> None:
    taken = []
    while True:
        taken.append(b"x" * (8 << 20))


def hang(behaviour: dict, output: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()  # what it starts must end as well, in a session of its own too
    if child == 0:
        os.setsid()
    print("HANGS", flush=True)
    time.sleep(600)


def fill_disk(behaviour: dict, output: Path) -> None:
    with (output / "rank0.engine").open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1 << 20))


def go_on(behaviour: dict, output: Path) -> None:
    pass


if __name__ == "__main__":
    sys.exit(main())
