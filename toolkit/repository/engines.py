"""What an engine was built for, read from the config.json beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.repository.seen import EngineFacts, Model, Seen

#: TensorRT-LLM's numbers of speculative modes, in config.json.
SPECULATIVE = {2: "draft_tokens_external", 4: "medusa", 8: "lookahead_decoding", 32: "eagle"}


def facts_of(model: Model, seen: Seen) -> EngineFacts | None:
    """Return what a model's engine was built for; None where neither its plan nor its files are here."""
    folder = seen.on_disk(model.value("gpt_model_path", "/opt/tritonserver/none"))
    if folder is not None and (folder / "config.json").is_file():
        return read(folder / "config.json")
    return seen.around.engine if model.name.rsplit(".", 1)[-1] == "tensorrt_llm" else None


def read(path: Path) -> EngineFacts | None:
    """Return what an engine's config.json says; None for a file that is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return _facts(document)
    except (ValueError, TypeError):  # no JSON, or no number where one belongs
        return None


def _facts(document: Any) -> EngineFacts | None:
    built, trained = _group(document, "build_config"), _group(document, "pretrained_config")
    if not built or not trained:
        return None
    mapping, plugins = _group(trained, "mapping"), _group(built, "plugin_config")
    mode = built.get("speculative_decoding_mode", 0)
    return EngineFacts(
        tensorrt_llm=str(document.get("version", "")),
        max_batch_size=int(built.get("max_batch_size", 0)),
        max_beam_width=int(built.get("max_beam_width", 1)),
        tp=int(mapping.get("tp_size", 1)),
        pp=int(mapping.get("pp_size", 1)),
        is_context_paged=bool(plugins.get("use_paged_context_fmha", True)),
        speculative=SPECULATIVE.get(mode, "") if isinstance(mode, int) else str(mode).lower(),
        logits_dtype=str(trained.get("logits_dtype", "float32")),
    )


def _group(document: Any, key: str) -> dict[str, Any]:
    found = document.get(key) if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}
