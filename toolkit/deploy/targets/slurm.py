"""Slurm: a batch script that runs the serving image with pyxis and enroot, one process a rank."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable

from toolkit import templating
from toolkit.deploy import pods
from toolkit.deploy.guide import Guide, Step, readme
from toolkit.deploy.target import Setting, Target
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import DeploySpec

#: Of the values of #SBATCH lines, which no shell reads.
WORD = re.compile(r"[A-Za-z0-9_.,+-]*")
TIME = re.compile(r"(\d+-)?\d+(:\d\d){0,2}|UNLIMITED")
#: Slurm's own words for one of the arguments that listen, by what they begin with.
DOORS = ("http", "grpc", "metrics")
#: What TensorRT-LLM's checkpoints say of their nodes: rank R computes on GPU R modulo this.
GPUS_PER_NODE = 8
#: After the requests in flight have ended: the server's own end, and srun's.
END_MARGIN_S = 30

SETTINGS = {
    "partition": Setting(default="", help="partition; empty: the site's default"),
    "account": Setting(default="", help="account; empty: the site's default"),
    "time_limit": Setting(default="7-00:00:00", help="of a job, as Slurm writes it: days-hours:minutes:seconds"),
    "gpu_type": Setting(default="", help="the card as gres.conf names it; empty: any"),
    "image_file": Setting(default="", help="path of the image as a squashfs file; empty: images/ beside the model"),
    "engines": Setting(default="", help="folder that keeps compiled engines; empty: beside the model"),
}


def render(spec: DeploySpec) -> dict[str, str]:
    """Return the batch script, its probe, what fetches its image, and README.md."""
    _need_possible(spec)
    model = spec.volume.source
    digest = spec.container.image.partition("@")[2]
    values = {
        "spec": spec,
        "model": model,
        "engines": spec.settings["engines"] or f"{model}.engines",
        "image_file": spec.settings["image_file"] or f"{model.rpartition('/')[0]}/images/{_file_name(spec)}",
        "image_uri": uri_of(spec.container.image),
        "digest": digest,
        "partition": _word(spec, "partition"),
        "account": _word(spec, "account"),
        "gpu_type": _word(spec, "gpu_type"),
        "time_limit": _time_limit(spec.settings["time_limit"]),
        "gpus": spec.placement.gpus_per_node,
        "tasks": _tasks(spec),
        "tasks_per_node": _tasks(spec) // spec.placement.nodes,
        "cpus_per_task": math.ceil(spec.budgets.cpus.value * spec.placement.nodes / _tasks(spec)),
        "memory_mib": math.ceil(spec.budgets.memory_bytes.value / 2**20),
        "stop_s": math.ceil(spec.budgets.drain_s.value) + END_MARGIN_S,
        "startup_s": math.ceil(spec.budgets.startup_s.value),
        "startup_reason": spec.budgets.startup_s.reason,
        "environment": dict(spec.container.environment),
        "is_compiled": bool(spec.container.engines_path),
        "launch_reason": _launch_reason(spec),
        "probe_timeout_s": pods.PROBE_TIMEOUT_S,
        "alive_failures": pods.ALIVE_FAILURES,
        "command": command(spec),
    }
    return {
        "serve.sbatch": templating.render("deploy/slurm/serve.sbatch.j2", values),
        "probe.py": templating.source("deploy/kubernetes/probe.py"),
        "import-image.sh": templating.render("deploy/slurm/import-image.sh.j2", values),
        "README.md": readme(spec, _guide(spec, values)),
    }


def command(spec: DeploySpec) -> list[str]:
    """Return the words that run in the container, quoted for the batch script, listening where its variables say."""
    words = ["trtk"] if spec.model.is_for_cpu else []
    if spec.model.flow == "llmapi" and _tasks(spec) > 1:
        words.append("trtllm-llmapi-launch")
    arguments = iter(spec.container.arguments)
    for word in arguments:
        words += _placed(word, arguments)
        if word.endswith("/start.py") and _tasks(spec) > 1:
            words += ["--rank"] if spec.model.flow == "engine" else []
            words += ["--gpus", str(spec.placement.gpus_per_node)]
    return words


def uri_of(image: str) -> str:
    """Return an image as enroot writes it: docker://REGISTRY#NAME:TAG."""
    name, _, digest = image.partition("@")
    registry, slash, path = name.partition("/")
    is_registry = bool(slash) and ("." in registry or ":" in registry or registry == "localhost")
    has_tag = ":" in (path if is_registry else name)
    shown = f"{registry}#{path}" if is_registry else name
    return f"docker://{shown}" if has_tag or not digest else f"docker://{shown}@{digest}"


def _placed(word: str, following: Iterable[str]) -> list[str]:
    if word == "--host":
        next(iter(following))
        return [word, '"$listen"']
    for door in DOORS:
        if word == f"--{door}-port":
            next(iter(following))
            return [word, f'"${door}"']
        if word.startswith(f"--{door}-address="):
            return [f'--{door}-address="$listen"']
        if word.startswith(f"--{door}-port="):
            return [f'--{door}-port="${door}"']
    return [shlex.quote(word)]


def _tasks(spec: DeploySpec) -> int:
    """Processes of one replica: one a rank where MPI starts them."""
    return max(spec.model.ranks, 1)


def _launch_reason(spec: DeploySpec) -> str:
    if _tasks(spec) == 1:
        return ""
    if spec.model.flow == "llmapi":
        return (
            "MPI cannot start further processes under Slurm: the ranks are here, and the LLM API's launcher joins them."
        )
    return "Leader mode: orchestrator mode starts processes with MPI_Comm_spawn, which Slurm does not like."


def _need_possible(spec: DeploySpec) -> None:
    if spec.model.instances > 1:
        raise PlanInfeasible(
            f"{spec.model.folder} has {spec.model.instances} instances, which one server would have to spawn; "
            "under Slurm nothing is spawned.",
            hint=f"Build it with one instance and deploy --replicas {spec.model.instances}.",
        )
    if spec.model.flow == "engine" and spec.placement.nodes > 1 and spec.placement.gpus_per_node != GPUS_PER_NODE:
        raise PlanInfeasible(
            f"The ranks of a compiled engine count on nodes of {GPUS_PER_NODE} GPUs; these have "
            f"{spec.placement.gpus_per_node}.",
            hint="Build it with --flow llmapi, or with a --tp that one node has.",
        )
    if spec.container.openai_port:
        raise PlanInfeasible(
            "Slurm's jobs have Triton alone, without the OpenAI endpoint.",
            hint="Leave --openai out; `trtk serve --openai` is for one machine, kubernetes for several.",
        )
    if any(letter in spec.volume.source for letter in ",:"):
        raise UsageError(
            f"{spec.volume.source} has a comma or a colon, which srun --container-mounts takes for its own.",
            hint="Put the folder elsewhere.",
        )


def _word(spec: DeploySpec, name: str) -> str:
    value = spec.settings[name]
    if not WORD.fullmatch(value):
        raise UsageError(f"--set {name}={value} is no name that Slurm has.", hint="Leave it out for the site's own.")
    return value


def _time_limit(text: str) -> str:
    if not TIME.fullmatch(text):
        raise UsageError(f"--set time_limit={text} is no time of Slurm's.", hint="Write --set time_limit=7-00:00:00.")
    return text


def _file_name(spec: DeploySpec) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", spec.container.image.rpartition("/")[2].partition("@")[0])
    return f"{name}.sqsh"


def _guide(spec: DeploySpec, values: dict[str, object]) -> Guide:
    name = spec.name
    address = f"{name}-*.address"
    pinned = () if values["digest"] else ("The image is named by a tag, which moves; --image …@sha256:… pins it.",)
    compiled = (
        (f"The first job compiles the engine and keeps it in {values['engines']}; later ones find it.",)
        if spec.container.engines_path
        else ()
    )
    return Guide(
        needs=(
            "Slurm 22.05 or newer with pyxis, enroot 3.1 or newer, and the PMIx of the image's Open MPI.",
            f"A file system that every node sees: {spec.model.folder_bytes / 1e9:.1f} GB of model, 25 GB of image.",
            "curl and python3 on the nodes.",
        ),
        prepare=(
            Step(
                text="Copy the built folder there; nothing is downloaded in a job:",
                command=f"rsync -a engines/{shlex.quote(spec.model.folder)}/ {shlex.quote(spec.volume.source)}/",
            ),
            Step(
                text="Fetch the image once. nvcr.io's key, where it asks for one, is read from enroot's own "
                "`~/.config/enroot/.credentials`:",
                command="./import-image.sh",
            ),
        ),
        apply=(
            Step(text="Is the script one that this cluster takes?", command="sbatch --test-only serve.sbatch"),
            Step(text="Start it, from this folder, where it finds its probe:", command="sbatch serve.sbatch"),
        ),
        watch=(
            Step(text="The jobs, and what they say:", command=f"squeue --name {name}; tail -F {name}-*.log"),
            Step(text="A server that is ready leaves its node and ports here:", command=f"cat {address}"),
        ),
        reach=Step(
            text="It listens on its node's loopback. From the login node, through ssh (the first server's gRPC port):",
            command=f'read -r node _ grpc _ < <(cat {address}); ssh -fN -L 127.0.0.1:8001:127.0.0.1:"$grpc" "$node"',
        ),
        url="grpc://127.0.0.1:8001",
        remove=(
            Step(
                text="Let the requests in flight end, then the jobs:",
                command=f"scancel --batch --signal=TERM --name {name}",
            ),
            Step(text="What is left of a job that does not listen:", command=f"scancel --name {name}"),
        ),
        notes=(
            *pinned,
            *compiled,
            "Slurm restarts a job when a node fails (--requeue); the script itself restarts the server three times.",
            "Slurm counts no requests: more or fewer servers is another `--replicas`.",
            "The script was run on Slurm 22.05 with stand-ins for image and GPUs; pyxis and enroot have not seen it.",
        ),
    )


TARGET = Target(
    name="slurm",
    title="Slurm",
    render=render,
    settings=SETTINGS,
    volumes=("hostpath",),
    is_multi_node=True,
)
