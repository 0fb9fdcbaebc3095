"""What NVIDIA's backend has to know of a tokenizer to keep answers inside a grammar."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.errors import PlanInfeasible
from toolkit.files import json_object

HINT = "Leave guided decoding out, or take a model with a tokenizer.json."


def vocabulary(folder: Path) -> str:
    """Return the text of xgrammar_tokenizer_info.json: the vocabulary by id, the tokenizer, the ids that stop.

    As examples/generate_xgrammar_tokenizer_info.py in NVIDIA/TensorRT-LLM writes it, without transformers.
    """
    if not (folder / "tokenizer.json").is_file():
        raise PlanInfeasible(f"{folder} has no tokenizer.json, and xgrammar needs its vocabulary.", hint=HINT)
    document = json_object(folder / "tokenizer.json", hint=HINT)
    ids = _ids(document)
    made = {
        "encoded_vocab": [token for token, _ in sorted(ids.items(), key=lambda item: item[1])],
        "tokenizer_str": json.dumps(document, ensure_ascii=False, separators=(",", ":")),
        "stop_token_ids": [_end_id(folder, ids)],
    }
    return json.dumps(made, ensure_ascii=False, indent=None) + "\n"


def _ids(document: dict[str, Any]) -> dict[str, int]:
    """Return every token and its id, those that were added to the model's own among them."""
    known = document.get("model", {}).get("vocab", {})
    # Unigram models list their pieces with scores, in the order of the ids.
    pieces = known if isinstance(known, dict) else {piece: number for number, (piece, _) in enumerate(known)}
    return {**pieces, **{token["content"]: token["id"] for token in document.get("added_tokens", ())}}


def _end_id(folder: Path, ids: dict[str, int]) -> int:
    config = folder / "tokenizer_config.json"
    token: Any = json_object(config, hint=HINT).get("eos_token") if config.is_file() else None
    token = token.get("content") if isinstance(token, dict) else token
    if token not in ids:
        raise PlanInfeasible(f"{folder} does not say which token ends a text, and xgrammar must know.", hint=HINT)
    return ids[token]
