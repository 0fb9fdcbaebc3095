"""`trtllm-build` in the image that will serve the engine, on the card that will run it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from toolkit import containers
from toolkit.containers import ContainerSpec, Daemon, Mount
from toolkit.engine import attempt, build_failures, watcher
from toolkit.engine.attempt import Attempt
from toolkit.engine.builder import Builder, BuildJob, gpus_of, ranks, why_no_gpu
from toolkit.engine.toolchains import trtllm
from toolkit.specs import BuildPlan, Progress
from toolkit.specs.machine import BuildHost

CHECKPOINT, OUTPUT, WORKING_DIR = "/checkpoint", "/output", "/tmp"
#: Of the daemon's memory, so that a build that grows is killed and not the machine it runs on.
MEMORY_SHARE = 0.9
#: Threads and processes: TensorRT's builder, MPI and Python's pools stay far below.
PIDS = 4096
#: Python's pools and NCCL: 1 GiB and a quarter more for each rank.
SHM_BYTES, SHM_BYTES_PER_RANK = 1 << 30, 1 << 28
#: What NVIDIA's images ask for in their banner: pinned memory without a limit, stacks of 64 MiB.
ULIMITS = {"memlock": -1, "stack": 64 << 20}
#: Executable, because Triton's and torch's compilers load what they write there.
TMPFS = {"/tmp": "rw,exec,nosuid,nodev,mode=1777,size=8g"}
ENVIRONMENT = {
    "HOME": "/tmp",
    # A uid without a name in the image: torch asks for the name, and finds it here first.
    "USER": "trtk",
    "LOGNAME": "trtk",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONUNBUFFERED": "1",
}


def why_not(plan: BuildPlan, host: BuildHost) -> str | None:
    """Return why this machine's containers cannot compile the plan."""
    return why_no_gpu(plan, host) or host.docker_fault or None


def build(plan: BuildPlan, job: BuildJob, progress: Progress) -> Mapping[str, str]:
    """Compile FOLDER/checkpoint into FOLDER/engine/KEY; return what compiled."""
    with contextlib.closing(containers.connect()) as daemon:
        return _compiled(plan, job, daemon, progress)


def _compiled(plan: BuildPlan, job: BuildJob, daemon: Daemon, progress: Progress) -> Mapping[str, str]:
    containers.remove_orphans(daemon)
    image = containers.need_image(daemon, job.image or plan.release.image, progress=progress)
    with attempt.opened(plan, job, kind=watcher.CONTAINER) as made:
        spec = container(plan, job, made, daemon=daemon, image=image.image_id)
        with attempt.logged(made, plan, progress) as listener:
            ended = containers.run(daemon, spec, on_line=listener, on_note=listener)
        if ended.is_oom_killed and ended.exit_code:
            raise build_failures.of_memory(plan, spec.memory_bytes, made.log)
        if ended.exit_code:
            raise build_failures.of_log(plan, ended.exit_code, made.log)
    card = gpus_of(plan, job.host)[0]
    return {
        "image": image.digest,
        "tensorrt_llm": plan.release.tensorrt_llm,
        "docker": daemon.version,
        "compiled_on": card.title,
    }


def container(plan: BuildPlan, job: BuildJob, made: Attempt, *, daemon: Daemon, image: str) -> ContainerSpec:
    """Return the container that compiles: it reads the checkpoint, writes the engine, and reaches nothing else."""
    return ContainerSpec(
        job=made.job_id,
        image=image,
        command=tuple(
            trtllm.command(
                plan,
                checkpoint=CHECKPOINT,
                output=f"{OUTPUT}/{made.output.name}",
                timing_cache=f"{OUTPUT}/timing/{made.timing_cache.name}",
            )
        ),
        user="0:0" if daemon.is_rootless else f"{made.user[0]}:{made.user[1]}",
        mounts=(
            Mount(source=str(made.checkpoint), target=CHECKPOINT),
            Mount(source=str(made.output.parent), target=OUTPUT, is_read_only=False),
        ),
        environment=ENVIRONMENT,
        tmpfs=TMPFS,
        working_dir=WORKING_DIR,
        memory_bytes=job.memory_bytes or int(daemon.memory_bytes * MEMORY_SHARE),
        pids=PIDS,
        shm_bytes=SHM_BYTES + ranks(plan) * SHM_BYTES_PER_RANK,
        gpu_uuids=tuple(gpu.uuid for gpu in gpus_of(plan, job.host)),
        ulimits=ULIMITS,
    )


BUILDER = Builder(
    name="docker",
    rank=1,
    reason="the release's own image compiles what it will serve",
    is_deferred=False,
    why_not=why_not,
    build=build,
)
