"""How long one server may take to start and to stop, and how much of a machine it takes, each with its reason."""

from __future__ import annotations

import math

from toolkit.specs import Budgets, BuildPlan, DeployedModel, Promise, Reasoned

#: Threads of Triton, tokenizers and HTTP beside a GPU, and for each rank.
CPUS, CPUS_PER_RANK = 2, 2
#: Of the CPU engine, where nobody says otherwise.
CPUS_OF_CPU_ENGINE = 4
GIB = 1 << 30
#: A CUDA context, Python and its libraries, in each rank and in the server.
HOST_BYTES_PER_PROCESS = 3 * GIB
#: trtllm-build holds the weights, and a copy while TensorRT lays them out.
COMPILE_COPIES = 2.5
#: The longest that a request is waited for when a server is told to stop.
DRAIN_LEAST_S, DRAIN_MOST_S = 15, 600


def budgets_of(model: DeployedModel, plan: BuildPlan, promise: Promise, startup_s: int) -> Budgets:
    """Return the budgets; STARTUP_S is what `trtk serve` would wait for, compiling included."""
    from toolkit.serve import allowances, containment

    compile_s = None
    if model.is_deferred and model.kind == "trtllm":
        seconds = allowances.COMPILE_S + allowances.COMPILE_S_PER_GB * model.loaded_bytes / 1e9
        compile_s = Reasoned(value=math.ceil(seconds), reason=f"TensorRT compiles {model.loaded_bytes / 1e9:.1f} GB")
        startup_s -= round(seconds)
    shm = containment.SHM_BYTES + model.ranks * containment.SHM_BYTES_PER_RANK
    ranks = f" and 256 MiB for each of {model.ranks} ranks" if model.ranks else ""
    return Budgets(
        startup_s=Reasoned(
            value=startup_s,
            reason=f"{allowances.BASE_S[model.kind]:.0f} s to start, and {model.loaded_bytes / 1e9:.1f} GB at 100 MB/s",
        ),
        compile_s=compile_s,
        drain_s=_drain(promise),
        memory_bytes=_memory(model, plan, shm),
        shm_bytes=Reasoned(value=shm, reason=f"1 GiB for Python's tensors{ranks}"),
        cpus=_cpus(model),
    )


def _drain(promise: Promise) -> Reasoned:
    """Return how long requests in flight may go on: twice what a mean one takes under the load."""
    if not promise.tpot_ms:
        return Reasoned(value=DRAIN_LEAST_S, reason="nobody has said how long an answer takes")
    each_s = ((promise.ttft_ms or 0) + promise.osl * promise.tpot_ms) / 1000
    seconds = min(DRAIN_MOST_S, max(DRAIN_LEAST_S, math.ceil(2 * each_s)))
    return Reasoned(value=seconds, reason=f"an answer of {promise.osl:.0f} tokens takes {each_s:.1f} s under the load")


def _memory(model: DeployedModel, plan: BuildPlan, shm: int) -> Reasoned:
    from toolkit.plan import memory

    if model.is_for_cpu:
        held = plan.weights_bytes + plan.kv_bytes + memory.CPU_RUNTIME_BYTES
        total = math.ceil(1.2 * held + shm)
        parts = f"weights {_gib(plan.weights_bytes)}, KV cache {_gib(plan.kv_bytes)}, the engine, a fifth more"
    else:
        total = math.ceil(1.2 * model.loaded_bytes + (model.ranks + 1) * HOST_BYTES_PER_PROCESS + shm)
        parts = f"{_gib(model.loaded_bytes)} read on the way to the GPU, {model.ranks + 1} processes of 3 GiB"
        if model.is_deferred and model.kind == "trtllm":
            total = max(total, math.ceil(COMPILE_COPIES * model.loaded_bytes + HOST_BYTES_PER_PROCESS + shm))
            parts += ", or what compiling holds"
    return Reasoned(value=math.ceil(total / GIB) * GIB, reason=f"{parts}, and /dev/shm")


def _cpus(model: DeployedModel) -> Reasoned:
    if model.is_for_cpu:
        return Reasoned(value=CPUS_OF_CPU_ENGINE, reason="the engine takes what it gets; it was sized for as many")
    count = CPUS + CPUS_PER_RANK * model.ranks
    return Reasoned(value=count, reason=f"two for Triton, two for each of {model.ranks} ranks")


def _gib(size: float) -> str:
    return f"{size / GIB:.1f} GiB"
