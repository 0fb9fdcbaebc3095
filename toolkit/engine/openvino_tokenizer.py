"""A Hugging Face tokenizer as OpenVINO models, so that the engine folder works with OpenVINO GenAI alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from toolkit.engine.openvino_files import save_ir
from toolkit.errors import BuildError

ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


def save_tokenizer(folder: Path, target: Path) -> None:
    """Write openvino_tokenizer.xml and openvino_detokenizer.xml of FOLDER/tokenizer.json into TARGET."""
    from openvino_tokenizers import convert_tokenizer
    from transformers import PreTrainedTokenizerFast

    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    special = {role: _text(settings[role]) for role in ROLES if settings.get(role)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), **special)
    try:
        encoder, decoder = convert_tokenizer(tokenizer, with_detokenizer=True)
    except (RuntimeError, ValueError, KeyError) as error:
        raise BuildError(f"openvino-tokenizers cannot convert {folder / 'tokenizer.json'}: {error}") from error
    save_ir(encoder, target / "openvino_tokenizer.xml", is_float16=True)
    save_ir(decoder, target / "openvino_detokenizer.xml", is_float16=True)


def _text(token: Any) -> str:
    """A special token is a string, or an AddedToken as a dict."""
    return str(token["content"] if isinstance(token, dict) else token)
