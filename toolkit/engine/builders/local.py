"""The `trtllm-build` of this machine, where it is of the release that will serve."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from toolkit.engine import attempt, build_failures, watcher
from toolkit.engine.attempt import Attempt, Listener
from toolkit.engine.builder import Builder, BuildJob, gpus_of, why_no_gpu
from toolkit.engine.toolchains import trtllm
from toolkit.specs import BuildPlan, Progress
from toolkit.specs.machine import BuildHost


def why_not(plan: BuildPlan, host: BuildHost) -> str | None:
    """Return why this machine's trtllm-build cannot compile the plan."""
    if not host.trtllm_build:
        return "no trtllm-build is on PATH"
    if host.trtllm_version != plan.release.tensorrt_llm:
        found = host.trtllm_version or "of a version that it does not tell"
        return f"{host.trtllm_build} is TensorRT-LLM {found}, and release {plan.release.name} needs " + (
            plan.release.tensorrt_llm
        )
    return why_no_gpu(plan, host)


def build(plan: BuildPlan, job: BuildJob, progress: Progress) -> Mapping[str, str]:
    """Compile FOLDER/checkpoint into FOLDER/engine/KEY; return what compiled."""
    with attempt.opened(plan, job, kind=watcher.PROCESSES) as made:
        try:
            with attempt.logged(made, plan, progress) as listener:
                exit_code = _run(plan, job, made, listener)
        finally:
            watcher.end_processes(made.job_id)
        if exit_code:
            raise build_failures.of_log(plan, exit_code, made.log)
    return {"tensorrt_llm": plan.release.tensorrt_llm, "compiled_on": gpus_of(plan, job.host)[0].title}


def _run(plan: BuildPlan, job: BuildJob, made: Attempt, listener: Listener) -> int:
    line = trtllm.command(
        plan, checkpoint=str(made.checkpoint), output=str(made.output), timing_cache=str(made.timing_cache)
    )
    gpus = ",".join(gpu.uuid for gpu in gpus_of(plan, job.host))
    environment = {**os.environ, watcher.MARKER: made.job_id, "CUDA_VISIBLE_DEVICES": gpus, "PYTHONUNBUFFERED": "1"}
    started = subprocess.Popen(
        [job.host.trtllm_build, *line[1:]],
        env=environment,
        cwd=made.output.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is ours to pass on
    )
    with started:
        try:
            for said in started.stdout or ():
                listener(said.rstrip("\n"))
        except BaseException:
            watcher.end_processes(made.job_id)
            raise
        return started.wait()


BUILDER = Builder(
    name="local",
    rank=2,
    reason="trtllm-build is on PATH, of the release that serves",
    is_deferred=False,
    why_not=why_not,
    build=build,
)
