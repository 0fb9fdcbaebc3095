"""One server on several nodes: a leader that starts every rank by MPI, and workers that wait to be asked."""

from __future__ import annotations

import dataclasses

from toolkit.deploy import names, pods
from toolkit.deploy.pods import Pod
from toolkit.errors import PlanInfeasible
from toolkit.specs import DeploySpec

GROUP = "/opt/trtk-group/group.py"
#: What trtllm-build writes into an engine where nobody says otherwise; the ranks find their cards by it.
GPUS_PER_NODE = 8
#: For the other pods to be scheduled and to pull their image; group.py waits as long.
WAIT_S = 1800
#: Beside Triton's words stand those of start.py.
TO_TRITON = "--"


def need_possible(spec: DeploySpec) -> None:
    """Raise PlanInfeasible where the ranks of one server cannot lie on several nodes."""
    if spec.placement.nodes == 1:
        return
    if spec.model.kind != "trtllm":
        raise PlanInfeasible(
            f"{spec.model.folder} is for the LLM API, whose ranks Triton starts on one node.",
            hint="trtk deploy dynamo spreads it over several.",
        )
    if spec.placement.gpus_per_node != GPUS_PER_NODE:
        raise PlanInfeasible(
            f"The ranks of a compiled engine count on nodes of {GPUS_PER_NODE} GPUs; these have "
            f"{spec.placement.gpus_per_node}.",
            hint="Build it with --flow llmapi and deploy dynamo, or with a --tp that one node has.",
        )


def leader(spec: DeploySpec, pod: Pod) -> Pod:
    """Return the pod that starts the ranks and answers clients."""
    start, _, triton = _split(spec)
    ranks = spec.placement.nodes * spec.placement.gpus_per_node
    each = ("--rank", "--gpus", str(spec.placement.gpus_per_node))
    line = ("python3", GROUP, "lead", "--ranks", str(ranks), "--slots", str(spec.placement.gpus_per_node), TO_TRITON)
    return dataclasses.replace(
        pod,
        startup_failures=pod.startup_failures + WAIT_S // pods.STARTUP_PERIOD_S,
        wait_s=WAIT_S,
        arguments=(*line, *start, *each, TO_TRITON, *triton),
        compile_arguments=(*pod.compile_arguments, "--gpus", str(spec.placement.gpus_per_node)),
    )


def worker(spec: DeploySpec, pod: Pod) -> Pod:
    """Return the pod of the other ranks: it listens for the leader of its own group, who knows the group's key."""
    return dataclasses.replace(
        pod,
        labels=names.labels(spec.name, version=spec.release, component=pods.WORKER),
        arguments=("python3", GROUP, "serve"),
        is_serving=False,
        ports={},
        # The leader's engine is in the volume that both of them see.
        is_compiling=False,
    )


def _split(spec: DeploySpec) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
    words = spec.container.arguments
    cut = words.index(TO_TRITON)
    return words[:cut], words[cut], words[cut + 1 :]
