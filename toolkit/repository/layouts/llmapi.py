"""One model in front of the LLM API, with the name and tensors of the engine flow's ensemble, for the same clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from toolkit import templating
from toolkit.errors import PlanInfeasible, UnknownName
from toolkit.repository import tensors
from toolkit.repository.layout import Layout
from toolkit.repository.layouts.inflight_batcher import FOLDER as ENGINE_FOLDER
from toolkit.repository.layouts.inflight_batcher import TABLES, TYPES, python_files
from toolkit.specs import RepositorySpec

#: The model has the name and the tensors of the engine flow's ensemble unless another name is asked for.
FOLDER, MODEL = "llmapi", "ensemble"
SHARED_FILES = ("served", "chat", "families")
CANCELLATION_CHECK_MS = 100


def render(spec: RepositorySpec) -> dict[str, str]:
    """Return the model's config, its Python and model.yaml."""
    types = {"$logits": "FP32", "$encoder": "FP16", "$prompt_table": TYPES[spec.dtype]}
    table = tensors.tables(TABLES, types, has_own=True)[MODEL]
    name = spec.model_name
    if unknown := sorted(spec.instances.keys() - {name}):
        raise UnknownName("model of this repository with instances", unknown[0], [name])
    if (count := spec.instances.get(name, 1)) > 1:
        raise PlanInfeasible(
            f"{count} instances of {name} would load the model {count} times on the same GPUs.",
            hint="Start a server for each set of GPUs instead.",
        )
    config = {
        "name": name,
        "backend": "python",
        "max_batch_size": spec.max_batch_size,
        # Triton takes it from here: the launcher of NVIDIA's images switches the other way, auto-complete, off.
        "is_decoupled": True,
        "batching": None,
        "inputs": table.inputs,
        "outputs": table.outputs,
        "steps": (),
        "instances": 1,
        "parameters": {"max_queue_size": spec.max_queue_size},
    }
    sources = python_files(FOLDER, MODEL, SHARED_FILES)
    return dict(
        sorted(
            {
                **spec.files,
                f"{name}/config.pbtxt": templating.render(f"{ENGINE_FOLDER}/config.pbtxt.j2", config),
                f"{name}/1/model.yaml": yaml_of(spec),
                **{f"{name}/1/{file}": text for file, text in sources.items()},
            }.items()
        )
    )


def yaml_of(spec: RepositorySpec) -> str:
    """Return model.yaml: the LLM API's arguments, and what model.py takes for Triton."""
    settings = {
        "model": spec.engine_dir,
        "backend": "pytorch",
        "enable_iter_perf_stats": True,  # what the model's metrics are made of
        "triton_config.cancellation_check_period_ms": CANCELLATION_CHECK_MS,
        **spec.llm_api,
        "triton_config.decoupled": True,
        "triton_config.max_batch_size": spec.max_batch_size,
    }
    return templating.render(f"{FOLDER}/model.yaml.j2", {"settings": nested(settings)})


def nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return dotted keys as groups of JSON values, which YAML reads as its own."""
    made: dict[str, Any] = {}
    for key, value in settings.items():
        group, _, name = key.partition(".")
        text = json.dumps(value)
        if name:
            made.setdefault(group, {})[name] = text
        else:
            made[group] = text
    return made


LAYOUT = Layout(name="llmapi", render=render)
