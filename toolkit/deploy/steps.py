"""What an operator of a Kubernetes cluster types, whatever the objects are made by: manifests or a chart."""

from __future__ import annotations

from shlex import quote

from toolkit.deploy import manifests, names, pods
from toolkit.deploy.guide import Step
from toolkit.specs import DeploySpec

URL = "grpc://127.0.0.1:8001"
LOCAL_HTTP, LOCAL_GRPC = 8000, 8001


def kubectl(spec: DeploySpec) -> str:
    """Return the beginning of every command."""
    return f"kubectl --namespace {spec.namespace}"


def workload(spec: DeploySpec) -> str:
    """Return what `kubectl` calls the object that makes the pods."""
    return f"{'leaderworkerset' if spec.placement.nodes > 1 else 'deployment'}/{spec.name}"


def needs(spec: DeploySpec) -> tuple[str, ...]:
    """Return what the cluster must have."""
    found = ["Kubernetes 1.27 or newer, and `kubectl` that reaches it."]
    if spec.gpu.sm:
        found.append(
            f"Nodes with {max(1, spec.placement.gpus_per_node)} free GPU(s) of sm_{spec.gpu.sm} and "
            f"{spec.gpu.memory_mib} MiB or more, NVIDIA's device plugin and GPU feature discovery: the GPU operator "
            "has both."
        )
    if spec.placement.nodes > 1:
        found.append("LeaderWorkerSet 0.6 or newer, which makes and restarts the pods of one server together.")
    without = "set objects.podMonitor=false" if spec.target == "helm" else "leave manifests/podmonitor.yaml out"
    found.append(f"The Prometheus operator, for the PodMonitor; without it {without}.")
    if spec.autoscale and spec.autoscale.kind == "keda":
        found.append(f"KEDA 2.18 or newer, and Prometheus at {spec.autoscale.prometheus_url}.")
    if spec.autoscale and spec.autoscale.kind == "hpa":
        found.append("prometheus-adapter, which makes the two metrics of the HorizontalPodAutoscaler (see Know).")
    if spec.container.openai_port:
        found.append("For the InferencePool: Gateway API Inference Extension 1.0 or newer, and an endpoint picker.")
    if spec.volume.kind == "oci":
        found.append(
            "Image volumes: Kubernetes 1.35, or 1.31 with the feature gate ImageVolume, and a runtime with them."
        )
    return tuple(found)


def prepare(spec: DeploySpec) -> tuple[Step, ...]:
    """Return how the model and the secrets get there."""
    where = kubectl(spec)
    steps = []
    if spec.namespace != "default":
        steps.append(Step(text="The namespace, with what it lets pods do:", command=_namespace(spec)))
    if spec.volume.kind == "pvc":
        steps.append(Step(text=_whence(spec, "into the claim, once"), command=_into_claim(spec)))
    elif spec.volume.kind == "oci":
        steps.append(
            Step(
                text=_whence(
                    spec, "as an image, where that is not pushed yet; --model-volume takes the digest it shows"
                ),
                command=_into_image(spec),
            )
        )
    elif spec.volume.kind == "hostpath":
        steps.append(
            Step(
                text=_whence(spec, "on every node that may run a server"),
                command=f"rsync -a --chmod=D755,F644 {quote(spec.model.folder)}/ NODE:{quote(spec.volume.source)}/",
            )
        )
    if spec.settings.get("api_keys_secret"):
        secret = spec.settings["api_keys_secret"]
        steps.append(
            Step(
                text="API keys: the first command prints a client's key, this once; the file has its hash alone:",
                command=(
                    "trtk keys add first --file api-keys.json\n"
                    f"{where} create secret generic {secret} --from-file=api-keys.json"
                ),
            )
        )
    if spec.placement.nodes > 1:
        secret = names.part_of(spec.name, "group")
        steps.append(
            Step(
                text="The key by which pods of one server know each other:",
                command=f"openssl rand -hex 32 | {where} create secret generic {secret} --from-file=key=/dev/stdin",
            )
        )
    return tuple(steps)


def _whence(spec: DeploySpec, where: str) -> str:
    """Return where the model's files go, and from where."""
    name = spec.model.folder
    return f"The model's files, {where}; here where {name}/ is (of a bundle: tar --zstd -xf {name}.tar.zst):"


def _namespace(spec: DeploySpec) -> str:
    profile = "privileged" if spec.volume.kind == "hostpath" else "restricted"
    return (
        f"kubectl create namespace {spec.namespace}\n"
        f"kubectl label namespace {spec.namespace} pod-security.kubernetes.io/enforce={profile}"
    )


def _into_image(spec: DeploySpec) -> str:
    image = quote(spec.volume.source.partition("@")[0])
    recipe = r"printf 'FROM scratch\nCOPY . /\n'"
    return f"{recipe} | docker build --tag {image} --file - {quote(spec.model.folder)}\ndocker push {image}"


def _into_claim(spec: DeploySpec) -> str:
    where, loader = kubectl(spec), names.part_of(spec.name, "loader")
    folder = quote(f"/model/{spec.volume.sub_path}".rstrip("/"))
    return "\n".join(
        (
            f"{where} apply -f prepare/",
            f"{where} wait --for=condition=Ready --timeout=30m pod/{loader}",
            *([f"{where} exec {loader} -- mkdir -p {folder}"] if spec.volume.sub_path else []),
            f"tar -C {quote(spec.model.folder)} -cf - . |"
            f" {where} exec -i {loader} -- tar -C {folder} --no-same-owner -xf -",
            f"{where} delete pod/{loader}",
        )
    )


def watch(spec: DeploySpec) -> tuple[Step, ...]:
    """Return how to see it start and run."""
    where, budgets = kubectl(spec), spec.budgets
    first_s = budgets.startup_s.whole + (budgets.compile_s.whole if budgets.compile_s else 0)
    chosen = f"app.kubernetes.io/instance={spec.name}"
    steps = [
        Step(
            text=f"A first start may take {first_s // 60 + 1} minutes and the image's download:",
            command=(
                f"{where} wait --for=condition=Ready --timeout={first_s + 1800}s pod --selector {chosen}"
                if spec.placement.nodes > 1
                else f"{where} rollout status {workload(spec)} --timeout={first_s + 1800}s"
            ),
        )
    ]
    if spec.container.engines_path:
        steps.append(
            Step(text="What compiles the engine says:", command=f"{where} logs --selector {chosen} -c engine --follow")
        )
    steps.append(Step(text="What the servers say:", command=f"{where} logs --selector {chosen} -c server --tail 50"))
    steps.append(
        Step(
            text="Why a pod does not start, or was taken away:",
            command=f"{where} describe pods --selector {chosen}\n{where} get events --sort-by .lastTimestamp",
        )
    )
    return tuple(steps)


def reach(spec: DeploySpec) -> Step:
    """Return what makes it reachable from here."""
    return Step(
        text="From this machine, in a second terminal; of several servers this reaches one:",
        command=f"{kubectl(spec)} port-forward service/{spec.name} {LOCAL_HTTP}:http {LOCAL_GRPC}:grpc",
    )


def remove_claim(spec: DeploySpec) -> tuple[Step, ...]:
    """Return what removes the model's files too, where the claim is this deployment's own."""
    if not manifests.is_own_claim(spec):
        return ()
    return (Step(text="With the model's files:", command=f"{kubectl(spec)} delete pvc/{spec.volume.source}"),)


def notes(spec: DeploySpec) -> tuple[str, ...]:
    """Return what an operator should know before trusting it."""
    found = []
    if not spec.container.is_digest_known:
        found.append(
            f"{spec.container.image} is a tag, which moves: `--image` with @sha256:… makes every pod run the same."
        )
    if spec.volume.kind == "hostpath":
        found.append("A hostPath volume is forbidden by the Pod Security profiles baseline and restricted.")
    if spec.autoscale and spec.autoscale.kind == "hpa":
        found.append(
            "prometheus-adapter makes nv_trt_llm_request_metrics and nv_trt_llm_kv_cache_block_metrics of the pods "
            'with the rule: seriesQuery \'{__name__=~"nv_trt_llm_.*",namespace!="",pod!=""}\', resources.overrides '
            "{namespace: {resource: namespace}, pod: {resource: pod}}, metricsQuery "
            "'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'."
        )
    if spec.container.openai_port:
        found.append(
            "The endpoint picker reads the metrics of Triton with TensorRT-LLM: the pods have the label "
            f"{pods.ENGINE_LABEL} for it. They are on port {spec.container.metrics_port}, not on the pool's own: "
            f"--model-server-metrics-port={spec.container.metrics_port}, or a metrics source in its configuration."
        )
    if (manifests.is_own_claim(spec) or spec.container.engines_path) and manifests.access(spec) == "ReadWriteOnce":
        found.append(
            "The claims are ReadWriteOnce, for one server, and Kubernetes lets nobody change that: for more servers "
            "remove them, deploy with --replicas and take the model in again."
        )
    if spec.replicas.whole == 1 and not spec.autoscale and spec.settings.get("surge") != "1" and spec.gpu.sm:
        found.append("One server and no spare GPU: a rollout stops serving while the new pod starts.")
    return tuple(found)
