"""What an operator types to run a deployment on KServe, and what he should know of it."""

from __future__ import annotations

from toolkit.deploy import kserve_llm, operated, steps
from toolkit.deploy.guide import Guide, Step
from toolkit.specs import DeploySpec

OPENAI_URL = "openai+http://127.0.0.1:8000/v1"
#: KServe's, of an InferenceService: what its default template calls the container.
CONTAINER, LLM_CONTAINER = "kserve-container", "main"
#: More than a start takes: the image's download.
DOWNLOAD_S = 1800


def deployment(spec: DeploySpec) -> str:
    """Return what KServe calls the Deployment that it makes of an InferenceService."""
    return f"{spec.name}-predictor"


def of_triton(spec: DeploySpec) -> Guide:
    """Return the steps of an InferenceService."""
    where = steps.kubectl(spec)
    return Guide(
        needs=(
            "KServe 0.16 or newer; older ones call the deployment mode RawDeployment, not Standard.",
            *(need for need in steps.needs(spec) if "LeaderWorkerSet" not in need),
        ),
        prepare=operated.prepare(spec),
        apply=_apply(spec),
        watch=_watch(spec, "inferenceservice", CONTAINER),
        reach=Step(
            text="From this machine, in a second terminal; of several servers this reaches one:",
            command=f"{where} port-forward deployment/{deployment(spec)} 8000:8000 8001:8001",
        ),
        url=steps.URL,
        is_reaching_one=True,
        remove=_remove(spec),
        notes=steps.notes(spec),
    )


def of_llm(spec: DeploySpec) -> Guide:
    """Return the steps of an LLMInferenceService."""
    where = steps.kubectl(spec)
    return Guide(
        needs=(
            "KServe 0.20 or newer with LLMInferenceService v1alpha2 and a Gateway; "
            "`enableLLMInferenceServiceTLS` is false in its inferenceservice-config.",
            *(need for need in steps.needs(spec) if "PodMonitor" not in need),
        ),
        prepare=operated.prepare(spec),
        apply=_apply(spec),
        watch=_watch(spec, "llminferenceservice", LLM_CONTAINER),
        reach=Step(
            text="From this machine, in a second terminal; past the gateway, to one server:",
            command=f"{where} port-forward service/{spec.name}-kserve-workload-svc 8000:{kserve_llm.PORT}",
        ),
        url=OPENAI_URL,
        is_reaching_one=True,
        remove=_remove(spec),
        notes=_llm_notes(spec),
    )


def _apply(spec: DeploySpec) -> tuple[Step, ...]:
    where = steps.kubectl(spec)
    return (
        Step(
            text="Ask the cluster what it would change, then change it:",
            command=f"{where} diff -f manifests/\n{where} apply -f manifests/",
        ),
    )


def _watch(spec: DeploySpec, resource: str, container: str) -> tuple[Step, ...]:
    where, budgets = steps.kubectl(spec), spec.budgets
    first_s = budgets.startup_s.whole + (budgets.compile_s.whole if budgets.compile_s else 0)
    pods = f"app.kubernetes.io/instance={spec.name}"
    return (
        Step(
            text=f"A first start may take {first_s // 60 + 1} minutes and the image's download:",
            command=f"{where} wait --for=condition=Ready --timeout={first_s + DOWNLOAD_S}s {resource}/{spec.name}",
        ),
        Step(text="What the servers say:", command=f"{where} logs --selector {pods} --container {container} --tail 50"),
        Step(
            text="Why a pod does not start, or was taken away:",
            command=f"{where} describe {resource}/{spec.name}\n{where} describe pods --selector {pods}",
        ),
    )


def _remove(spec: DeploySpec) -> tuple[Step, ...]:
    command = f"{steps.kubectl(spec)} delete --ignore-not-found -f manifests/"
    return (Step(text="The model's claim stays:", command=command), *steps.remove_claim(spec))


def _llm_notes(spec: DeploySpec) -> tuple[str, ...]:
    notes = [
        "KServe supports vLLM in an LLMInferenceService; another server in the container `main` is supported by the "
        "community alone.",
        f"That {spec.container.image} has trtllm-serve on its PATH is UNVERIFIED: NVIDIA's release image "
        "nvcr.io/nvidia/tensorrt-llm/release has it, and --image names it.",
        f"Clients ask for {kserve_llm.served_name(spec)}; trtllm-serve asks for no key, the gateway in front must.",
        "trtllm-serve tells no queue and no KV cache: no autoscaling and no endpoint picker here.",
    ]
    if not spec.settings["client_namespace"]:
        notes.append("The gateway's pods run elsewhere: name their namespace with --set client_namespace=NAMESPACE.")
    if spec.container.openai_port:
        notes.append("--openai changes nothing here: trtllm-serve speaks OpenAI's protocol and no other.")
    return (*notes, *(note for note in steps.notes(spec) if "is a tag" in note or "hostPath" in note))
