"""Five models: text in front of tokens in front of an engine, as an ensemble and as a Python model that calls them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from toolkit import templating
from toolkit.errors import PlanInfeasible, UnknownName
from toolkit.repository import parameters, tensors
from toolkit.repository.layout import KEPT, Layout
from toolkit.specs import RepositorySpec

TABLES = Path(__file__).parents[1] / "inflight_batcher.toml"
FOLDER = "inflight_batcher"
TYPES = {"float16": "FP16", "bfloat16": "BF16", "float32": "FP32"}
#: Model → the files of templates/…/shared that its own need beside them.
SHARED_FILES = {
    "preprocessing": ("served", "chat"),
    "postprocessing": ("served", "detokenizer"),
    "tensorrt_llm_bls": ("served",),
    "tensorrt_llm": ("served", "detokenizer", "families"),
}


DRAFT = "tensorrt_llm_draft"
#: A model's parameters are those of a table in toolkit/repository/parameters.
ROLES = {
    "preprocessing": "preprocessing",
    "tensorrt_llm": "tensorrt_llm",
    "postprocessing": "postprocessing",
    "tensorrt_llm_bls": "tensorrt_llm_bls",
}


def render(spec: RepositorySpec) -> dict[str, str]:
    """Return the models' files: five, and a sixth where another engine proposes tokens."""
    _need_possible(spec)
    types = {
        "$logits": TYPES[spec.logits_dtype],
        "$encoder": "FP16",
        "$prompt_table": TYPES[spec.dtype],
    }
    files: dict[str, str] = dict(spec.files)
    made = tensors.tables(TABLES, types, has_own=spec.engine_backend == "openvino")
    if spec.draft_engine_dir:
        made[DRAFT] = made["tensorrt_llm"]
    asked = _asked(spec)
    for model, table in made.items():
        values = {"name": model, "inputs": table.inputs, "outputs": table.outputs, "steps": table.steps}
        config = values | _common(spec, model) | SETTINGS[model](spec)
        config["parameters"] |= asked.get(model, {})
        files[f"{model}/config.pbtxt"] = templating.render(f"{FOLDER}/config.pbtxt.j2", config)
        files |= _version_folder(model, spec)
    return dict(sorted(files.items()))


def roles(spec: RepositorySpec) -> dict[str, str]:
    """Return which table of parameters each model has."""
    engine = "openvino" if spec.engine_backend == "openvino" else "tensorrt_llm"
    return {**ROLES, "tensorrt_llm": engine, **({DRAFT: engine} if spec.draft_engine_dir else {})}


def _asked(spec: RepositorySpec) -> dict[str, dict[str, Any]]:
    """Return the spec's parameters; the draft shares those of tensorrt_llm that it does not set itself."""
    parameters.need_settable(spec.parameters, roles(spec), version=spec.tensorrt_llm)
    asked: dict[str, dict[str, Any]] = {model: dict(values) for model, values in spec.parameters.items()}
    return {**asked, DRAFT: asked.get("tensorrt_llm", {}) | asked.get(DRAFT, {})}


def _need_possible(spec: RepositorySpec) -> None:
    if spec.engine_backend not in BACKENDS:
        raise UnknownName("engine backend", spec.engine_backend, BACKENDS)
    if unknown := sorted(spec.instances.keys() - ROLES.keys()):
        raise UnknownName("model of this repository with instances", unknown[0], ROLES)
    if spec.engine_backend != "openvino":
        return
    if not spec.is_decoupled:
        raise PlanInfeasible(
            "The CPU engine answers decoupled only: several requests share its steps.",
            hint="Leave streaming on; a client that does not ask for a stream still gets one answer.",
        )
    if (count := spec.instances.get("tensorrt_llm", 1)) > 1:
        raise PlanInfeasible(
            f"{count} instances of the CPU engine would take the cores from each other.",
            hint="Leave it at one: it already runs many requests together.",
        )
    if spec.draft_engine_dir:
        raise PlanInfeasible(
            "The CPU engine takes no draft model here.", hint="Leave --draft out, or build both for an NVIDIA GPU."
        )


def _common(spec: RepositorySpec, model: str) -> dict[str, Any]:
    return {
        "backend": "python",
        "max_batch_size": spec.max_batch_size,
        "is_decoupled": None,
        "batching": None,
        "instances": spec.instances.get(model, 1),
        "parameters": {},
    }


def _version_folder(model: str, spec: RepositorySpec) -> dict[str, str]:
    is_python = model in SHARED_FILES and (model != "tensorrt_llm" or spec.engine_backend == "openvino")
    if not is_python:
        return {f"{model}/1/.gitkeep": KEPT}
    return {f"{model}/1/{name}": text for name, text in python_files(FOLDER, model, SHARED_FILES[model]).items()}


def python_files(layout: str, model: str, shared: Iterable[str]) -> dict[str, str]:
    """Return a served model's Python by file name: its own and what it shares with others."""
    folders = templating.directory() / layout / model / "1", templating.directory() / FOLDER / "shared"
    paths = [*sorted(folders[0].glob("*.py")), *(folders[1] / f"{name}.py" for name in shared)]
    return {path.name: path.read_text(encoding="utf-8") for path in paths}


def _batching(spec: RepositorySpec) -> dict[str, int]:
    return {
        "preferred_batch_size": spec.max_batch_size,
        "max_queue_delay_microseconds": spec.max_queue_delay_microseconds,
        "max_queue_size": spec.max_queue_size,
    }


def _preprocessing(spec: RepositorySpec) -> dict[str, Any]:
    return {
        "batching": _batching(spec),
        "parameters": {
            "tokenizer_dir": spec.tokenizer_dir,
            "multimodal_model_path": "",  # must be there, may be empty
            "add_special_tokens": "true",
            "max_seq_len": spec.max_seq_len,
        },
    }


def _postprocessing(spec: RepositorySpec) -> dict[str, Any]:
    is_openvino = spec.engine_backend == "openvino"
    values = {"tokenizer_dir": spec.tokenizer_dir, "skip_special_tokens": "true"}
    return {
        # A batcher drops cancelled requests; without one this step sees that a client left and tells the engine.
        "batching": None if is_openvino else {"preferred_batch_size": 0},
        "parameters": values | ({"stops_model": "tensorrt_llm"} if is_openvino else {}),
    }


def _engine(spec: RepositorySpec) -> dict[str, Any]:
    own = BACKENDS[spec.engine_backend](spec)
    common = {
        "gpt_model_type": "inflight_fused_batching",
        "gpt_model_path": spec.engine_dir,
        "max_beam_width": spec.max_beam_width,
        "exclude_input_in_output": "true",
        "enable_kv_cache_reuse": _text(is_on=spec.is_kv_cache_reuse_enabled),
        "enable_chunked_context": _text(is_on=spec.is_chunked_context_enabled),
        "cancellation_check_period_ms": 100,
    }
    # The backends read some keys without asking whether they are there.
    known = parameters.in_release(roles(spec)["tensorrt_llm"], spec.tensorrt_llm)
    needed = {key: "" for key, one in known.items() if one.is_required_in(spec.tensorrt_llm)}
    batching = {"is_decoupled": spec.is_decoupled, "batching": _batching(spec)}
    return batching | own | {"parameters": {**needed, **common, **own["parameters"]}}


def _tensorrtllm(spec: RepositorySpec) -> dict[str, Any]:
    values: dict[str, Any] = {
        "stats_check_period_ms": 100,
        "kv_cache_free_gpu_mem_fraction": spec.kv_cache_free_gpu_mem_fraction,
        "batch_scheduler_policy": "guaranteed_no_evict",
        "executor_worker_path": "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker",
    }
    if (count := spec.instances.get("tensorrt_llm", 1)) > 1:
        values["gpu_device_ids"] = _devices(count, spec.ranks)
    return {"backend": "tensorrtllm", "parameters": values}


def _devices(instances: int, ranks: int) -> str:
    """Return gpu_device_ids of instances that share no GPU: 0,1;2,3 of two with two ranks each."""
    return ";".join(",".join(str(each * ranks + rank) for rank in range(ranks)) for each in range(instances))


def _draft(spec: RepositorySpec) -> dict[str, Any]:
    """Return the settings of the engine that proposes tokens: a tensorrt_llm of its own."""
    made = _engine(spec)
    return made | {"parameters": made["parameters"] | {"gpt_model_path": spec.draft_engine_dir}}


def _openvino(spec: RepositorySpec) -> dict[str, Any]:
    values = {
        "tokenizer_dir": spec.tokenizer_dir,
        "max_batch_size": spec.max_batch_size,
        "max_seq_len": spec.max_seq_len,
        "max_num_tokens": spec.max_num_tokens,
        "stream_interval": "auto",
    }
    return {
        "backend": "python",
        "parameters": values | ({"kv_cache_bytes": spec.kv_cache_bytes} if spec.kv_cache_bytes else {}),
    }


def _ensemble(spec: RepositorySpec) -> dict[str, Any]:
    return {"backend": None, "instances": None, "max_batch_size": spec.max_batch_size}


def _bls(spec: RepositorySpec) -> dict[str, Any]:
    return {
        "is_decoupled": spec.is_decoupled,
        "parameters": {
            "tensorrt_llm_model_name": "tensorrt_llm",
            "max_requests_in_flight": 4 * spec.max_batch_size,
            "max_requests_waiting": spec.max_queue_size,
        }
        | ({"tensorrt_llm_draft_model_name": DRAFT} if spec.draft_engine_dir else {}),
    }


def _text(*, is_on: bool) -> str:
    return "true" if is_on else "false"


BACKENDS: dict[str, Callable[[RepositorySpec], dict[str, Any]]] = {"openvino": _openvino, "tensorrtllm": _tensorrtllm}
SETTINGS: dict[str, Callable[[RepositorySpec], dict[str, Any]]] = {
    "preprocessing": _preprocessing,
    "tensorrt_llm": _engine,
    DRAFT: _draft,
    "postprocessing": _postprocessing,
    "ensemble": _ensemble,
    "tensorrt_llm_bls": _bls,
}
LAYOUT = Layout(name="inflight_batcher", render=render)
