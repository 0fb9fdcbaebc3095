"""Five models: text in front of tokens in front of an engine, as an ensemble and as a Python model that calls them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolkit import templating
from toolkit.errors import PlanInfeasible, UnknownName
from toolkit.repository import tensors
from toolkit.repository.layout import KEPT, Layout
from toolkit.specs import RepositorySpec

TABLES = Path(__file__).parents[1] / "inflight_batcher.toml"
FOLDER = "inflight_batcher"
TYPES = {"float16": "FP16", "bfloat16": "BF16", "float32": "FP32"}
#: Version folder of a model → the files it takes from templates/.
PYTHON_FILES = {
    "preprocessing": ("preprocessing/1/model.py", "shared/served.py"),
    "postprocessing": (
        "postprocessing/1/model.py",
        "postprocessing/1/leavers.py",
        "shared/detokenizer.py",
        "shared/served.py",
    ),
    "tensorrt_llm_bls": ("tensorrt_llm_bls/1/model.py", "shared/served.py"),
}
OPENVINO_FILES = (
    "tensorrt_llm/1/model.py",
    "tensorrt_llm/1/asked.py",
    "tensorrt_llm/1/engine.py",
    "tensorrt_llm/1/replies.py",
    "shared/detokenizer.py",
    "shared/served.py",
)


def render(spec: RepositorySpec) -> dict[str, str]:
    """Return the five models' files."""
    if spec.engine_backend not in BACKENDS:
        raise UnknownName("engine backend", spec.engine_backend, BACKENDS)
    if spec.engine_backend == "openvino" and not spec.is_decoupled:
        raise PlanInfeasible(
            "The CPU engine answers decoupled only: several requests share its steps.",
            hint="Leave streaming on; a client that does not ask for a stream still gets one answer.",
        )
    types = {
        "$logits": TYPES[spec.logits_dtype],
        "$encoder": "FP16",
        "$prompt_table": TYPES[spec.dtype],
    }
    files: dict[str, str] = {}
    made = tensors.tables(TABLES, types)
    for model, table in made.items():
        values = {"name": model, "inputs": table.inputs, "outputs": table.outputs, "steps": table.steps}
        config = values | _common(spec) | SETTINGS[model](spec)
        files[f"{model}/config.pbtxt"] = templating.render(f"{FOLDER}/config.pbtxt.j2", config)
        files |= _version_folder(model, spec)
    return dict(sorted(files.items()))


def _common(spec: RepositorySpec) -> dict[str, Any]:
    return {
        "backend": "python",
        "max_batch_size": spec.max_batch_size,
        "is_decoupled": None,
        "batching": None,
        "instances": 1,
        "parameters": {},
    }


def _version_folder(model: str, spec: RepositorySpec) -> dict[str, str]:
    sources = PYTHON_FILES.get(model, ())
    if model == "tensorrt_llm" and spec.engine_backend == "openvino":
        sources = OPENVINO_FILES
    if not sources:
        return {f"{model}/1/.gitkeep": KEPT}
    folder = templating.directory() / FOLDER
    return {f"{model}/1/{Path(source).name}": (folder / source).read_text(encoding="utf-8") for source in sources}


def _batching(spec: RepositorySpec) -> dict[str, int]:
    return {
        "preferred_batch_size": spec.max_batch_size,
        "max_queue_delay_microseconds": spec.max_queue_delay_microseconds,
        "max_queue_size": spec.max_queue_size,
    }


def _preprocessing(spec: RepositorySpec) -> dict[str, Any]:
    return {
        "batching": _batching(spec),
        "instances": spec.preprocessing_instances,
        "parameters": {
            "tokenizer_dir": spec.tokenizer_dir,
            "multimodal_model_path": "",  # must be there, may be empty
            "add_special_tokens": "true",
            "max_seq_len": spec.max_seq_len,
        },
    }


def _postprocessing(spec: RepositorySpec) -> dict[str, Any]:
    is_openvino = spec.engine_backend == "openvino"
    parameters = {"tokenizer_dir": spec.tokenizer_dir, "skip_special_tokens": "true"}
    return {
        # A batcher drops cancelled requests; without one this step sees that a client left and tells the engine.
        "batching": None if is_openvino else {"preferred_batch_size": 0},
        "instances": spec.postprocessing_instances,
        "parameters": parameters | ({"stops_model": "tensorrt_llm"} if is_openvino else {}),
    }


def _engine(spec: RepositorySpec) -> dict[str, Any]:
    common = {
        "is_decoupled": spec.is_decoupled,
        "batching": _batching(spec),
        "parameters": {
            "gpt_model_type": "inflight_fused_batching",
            "gpt_model_path": spec.engine_dir,
            "max_beam_width": spec.max_beam_width,
            "exclude_input_in_output": "true",
            "enable_kv_cache_reuse": _text(is_on=spec.is_kv_cache_reuse_enabled),
            "enable_chunked_context": _text(is_on=spec.is_chunked_context_enabled),
            "cancellation_check_period_ms": 100,
        }
        | (
            {"max_tokens_in_paged_kv_cache": spec.max_tokens_in_paged_kv_cache}
            if spec.max_tokens_in_paged_kv_cache
            else {}
        ),
    }
    own = BACKENDS[spec.engine_backend](spec)
    return common | own | {"parameters": common["parameters"] | own["parameters"]}


def _tensorrtllm(spec: RepositorySpec) -> dict[str, Any]:
    parameters = {
        "kv_cache_free_gpu_mem_fraction": spec.kv_cache_free_gpu_mem_fraction,
        "batch_scheduler_policy": spec.batch_scheduler_policy,
        "executor_worker_path": "/opt/tritonserver/backends/tensorrtllm/trtllmExecutorWorker",
        # The C++ backend reads these three without asking whether they are there.
        "tokenizer_dir": "",
        "xgrammar_tokenizer_info_path": "",
        "guided_decoding_backend": "",
    }
    return {"backend": "tensorrtllm", "parameters": parameters | dict(spec.engine_parameters)}


def _openvino(spec: RepositorySpec) -> dict[str, Any]:
    parameters = {
        "tokenizer_dir": spec.tokenizer_dir,
        "max_batch_size": spec.max_batch_size,
        "max_seq_len": spec.max_seq_len,
        "max_num_tokens": spec.max_num_tokens,
        "stream_interval": "auto",
    }
    sizes = {"kv_cache_bytes": spec.kv_cache_bytes, "num_threads": spec.num_threads}
    set_sizes = {key: value for key, value in sizes.items() if value}
    return {"backend": "python", "parameters": parameters | set_sizes}


def _ensemble(spec: RepositorySpec) -> dict[str, Any]:
    return {"backend": None, "instances": None, "max_batch_size": spec.max_batch_size}


def _bls(spec: RepositorySpec) -> dict[str, Any]:
    return {
        "is_decoupled": spec.is_decoupled,
        "instances": spec.bls_instances,
        "parameters": {"tensorrt_llm_model_name": "tensorrt_llm", "max_requests_in_flight": 4 * spec.max_batch_size},
    }


def _text(*, is_on: bool) -> str:
    return "true" if is_on else "false"


BACKENDS: dict[str, Callable[[RepositorySpec], dict[str, Any]]] = {"openvino": _openvino, "tensorrtllm": _tensorrtllm}
SETTINGS: dict[str, Callable[[RepositorySpec], dict[str, Any]]] = {
    "preprocessing": _preprocessing,
    "tensorrt_llm": _engine,
    "postprocessing": _postprocessing,
    "ensemble": _ensemble,
    "tensorrt_llm_bls": _bls,
}
LAYOUT = Layout(name="inflight_batcher", render=render)
