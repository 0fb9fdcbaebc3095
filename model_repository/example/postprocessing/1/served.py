"""What the models of this repository share: parameters, paths, tensors, and answers that are never a traceback."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

#: A request's parameter: who sets it reads errors inside a stream, which have no code, and is told it in the sentence.
NAMES_CODE = "trtk_names_code"
CODES = ("INVALID_ARG", "UNAVAILABLE", "CANCELLED", "INTERNAL", "NOT_FOUND", "UNSUPPORTED", "ALREADY_EXISTS")


class Refused(ValueError):
    """A request that cannot be served; its text is what the client reads."""

    def __init__(self, message: str, *, code: Any = None) -> None:
        super().__init__(message)
        self.code = pb_utils.TritonError.INVALID_ARG if code is None else code


def parameters(args: dict[str, str]) -> dict[str, str]:
    """Return the parameters that config.pbtxt sets; an empty value and a left-over ${...} count as unset."""
    entries = json.loads(args["model_config"]).get("parameters", {})
    values = {key: entry["string_value"] for key, entry in entries.items()}
    return {key: value for key, value in values.items() if value and not value.startswith("${")}


def flag(text: str) -> bool:
    """Read a boolean parameter."""
    if text.lower() in {"true", "t", "1", "yes", "y"}:
        return True
    if text.lower() in {"false", "f", "0", "no", "n"}:
        return False
    raise Refused(f"A parameter says {text!r} where true or false is meant.")


def path_of(args: dict[str, str], settings: dict[str, str], key: str) -> Path:
    """Return a folder of the parameters; a relative one starts at the model repository, so that it can be moved."""
    if key not in settings:
        raise Refused(f"The parameter {key} of {args['model_name']} is not set.")
    folder = (Path(args["model_repository"]).parent / settings[key]).resolve()
    if not folder.is_dir():
        raise Refused(f"{args['model_name']} wants {key} at {folder}, and there is no such folder.")
    return folder


def tokenizer_in(folder: Path) -> Any:
    """Load tokenizer.json; nothing else is read, and no code that comes with a model is run."""
    from tokenizers import Tokenizer

    file = folder / "tokenizer.json"
    if not file.is_file():
        raise Refused(f"{folder} has no tokenizer.json.")
    return Tokenizer.from_file(str(file))


def tensors_of(request: Any) -> dict[str, np.ndarray]:
    """Return a request's inputs by name."""
    return {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}


def text_of(item: bytes, name: str) -> str:
    """Read UTF-8."""
    try:
        return item.decode()
    except UnicodeDecodeError:
        raise Refused(f"{name} is not UTF-8.") from None


def wants_code(request: Any) -> bool:
    """Whether an error of this request begins with the name of its code."""
    try:
        return bool(json.loads(request.parameters() or "{}").get(NAMES_CODE))
    except ValueError:  # another parameter is not UTF-8
        return False


def refusal(error: BaseException, *, has_code: bool) -> Any:
    """Return the error that a client reads: our sentence, or one that points at the log, never a traceback."""
    if isinstance(error, Refused):
        sentence, code = str(error), error.code
    else:
        pb_utils.Logger.log_error("".join(traceback.format_exception(error)))
        lines = str(error).strip().splitlines() or ["no message"]
        what = f"{type(error).__name__}: {lines[0][:200]}"
        sentence = f"The model stopped on this request: {what}. The server's log has the details."
        code = pb_utils.TritonError.INTERNAL
    if has_code:
        names = (name for name in CODES if getattr(pb_utils.TritonError, name, None) == code)
        sentence = f"{next(names, 'UNKNOWN')}: {sentence}"
    return pb_utils.TritonError(sentence, code)
