"""One model in front of the LLM API, with the name and tensors of the engine flow's ensemble, for the same clients."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from toolkit import templating
from toolkit.repository import tensors
from toolkit.repository.layout import Layout
from toolkit.repository.layouts.inflight_batcher import FOLDER as ENGINE_FOLDER
from toolkit.repository.layouts.inflight_batcher import TABLES, TYPES
from toolkit.specs import RepositorySpec

FOLDER, MODEL = "llmapi", "ensemble"
PYTHON_FILES = (
    f"{FOLDER}/{MODEL}/1/model.py",
    f"{FOLDER}/{MODEL}/1/contract.py",
    f"{ENGINE_FOLDER}/shared/served.py",
)
CANCELLATION_CHECK_MS = 100


def render(spec: RepositorySpec) -> dict[str, str]:
    """Return the model's config, its Python and model.yaml."""
    table = tensors.tables(TABLES, {"$logits": "FP32", "$encoder": "FP16", "$prompt_table": TYPES[spec.dtype]})[MODEL]
    config = {
        "name": MODEL,
        "backend": "python",
        "max_batch_size": spec.max_batch_size,
        # Triton takes it from here: the launcher of NVIDIA's images switches the other way, auto-complete, off.
        "is_decoupled": True,
        "batching": None,
        "inputs": table.inputs,
        "outputs": table.outputs,
        "steps": (),
        "instances": 1,
        "parameters": {},
    }
    sources = (templating.directory() / path for path in PYTHON_FILES)
    return dict(
        sorted(
            {
                f"{MODEL}/config.pbtxt": templating.render(f"{ENGINE_FOLDER}/config.pbtxt.j2", config),
                f"{MODEL}/1/model.yaml": yaml_of(spec),
                **{f"{MODEL}/1/{path.name}": path.read_text(encoding="utf-8") for path in sources},
            }.items()
        )
    )


def yaml_of(spec: RepositorySpec) -> str:
    """Return model.yaml: the LLM API's arguments, and what model.py takes for Triton."""
    settings = {
        "model": spec.engine_dir,
        "backend": "pytorch",
        **spec.llm_api,
        "triton_config.decoupled": True,
        "triton_config.max_batch_size": spec.max_batch_size,
        "triton_config.cancellation_check_period_ms": CANCELLATION_CHECK_MS,
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
