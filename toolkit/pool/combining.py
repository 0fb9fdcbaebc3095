"""One model repository of several: every model gets its owner's name in front, and whoever calls it knows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import UsageError

FRONT, CALLER = "ensemble", "tensorrt_llm_bls"
ENGINE = "tensorrt_llm"
#: Parameters that name other models, with the models that are called where they are not set.
CALLED = {
    "preprocessing_model_name": "preprocessing",
    "tensorrt_llm_model_name": ENGINE,
    "postprocessing_model_name": "postprocessing",
    "tensorrt_llm_draft_model_name": "",
    "multimodal_encoders_name": "",
    "stops_model": "",
}
PATHS = (
    "tokenizer_dir",
    "gpt_model_path",
    "encoder_model_path",
    "multimodal_model_path",
    "xgrammar_tokenizer_info_path",
)
#: Of what is free once the weights are there; the number of tokens is what counts.
GPU_FRACTION = "0.95"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
SETTINGS = "model.yaml"


@dataclass(frozen=True, kw_only=True)
class Source:
    """One repository that becomes a part."""

    name: str  # what clients will call it
    repository: Path
    kv_tokens: int


def combined(sources: Sequence[Source]) -> dict[str, str]:
    """Return the files of the one repository: path below it → text."""
    files: dict[str, str] = {}
    for source in sources:
        files |= _renamed(source)
    return dict(sorted(files.items()))


def need_distinct(sources: Sequence[Source]) -> None:
    """Raise where two parts would have one name, or one that Triton does not take."""
    for source in sources:
        if not NAME.fullmatch(source.name):
            raise UsageError(
                f"{source.name!r} is no name for a model.", hint=f"Give it one: small={source.repository.parent}"
            )
        if FRONT not in names_in(source.repository):
            raise UsageError(
                f"{source.repository} has no model {FRONT!r}, which is what clients of a pool talk to.",
                hint="`trtk build` makes one.",
            )
    counts = Counter(name for source in sources for name in parts_of(source))
    if twice := [name for name, count in counts.items() if count > 1]:
        raise UsageError(
            f"Two models would be called {twice[0]!r}.", hint=f"Name them: a={sources[0].repository.parent}"
        )


def parts_of(source: Source) -> tuple[str, ...]:
    """Return the Triton models of a part."""
    return tuple(_new_name(source.name, name) for name in names_in(source.repository))


def loaded_of(source: Source) -> tuple[str, ...]:
    """Return the models of a part that Triton is told to load: all but the steps of the ensemble, which it brings."""
    front = _parsed(source.repository / FRONT / "config.pbtxt")
    steps = {step.model_name for step in front.ensemble_scheduling.step}
    return tuple(_new_name(source.name, name) for name in names_in(source.repository) if name not in steps)


def names_in(repository: Path) -> list[str]:
    """Return the models of a repository."""
    names = sorted(path.parent.name for path in repository.glob("*/config.pbtxt"))
    return [name for name in names if name != CALLER or _is_told(repository / name)]


def _is_told(caller: Path) -> bool:
    """Whether a caller reads what it calls from its parameters; NVIDIA's, and trtk's of old builds, do not."""
    return any("preprocessing_model_name" in path.read_text(encoding="utf-8") for path in caller.glob("*/*.py"))


def _new_name(owner: str, model: str) -> str:
    if model == FRONT:
        return owner
    return f"{owner}.{'bls' if model == CALLER else model}"


def _renamed(source: Source) -> dict[str, str]:
    from google.protobuf import text_format

    names = {name: _new_name(source.name, name) for name in names_in(source.repository)}
    files: dict[str, str] = {}
    for old, new in names.items():
        folder = source.repository / old
        config = _parsed(folder / "config.pbtxt")
        _rewrite(config, names, source)
        files[f"{new}/config.pbtxt"] = text_format.MessageToString(config)
        for path in _texts(folder):
            text = path.read_text(encoding="utf-8")
            if path.name == SETTINGS:
                text = _settings(text, source)
            files[f"{new}/{path.relative_to(folder)}"] = text
    return files


def _texts(folder: Path) -> Iterable[Path]:
    found = (path for path in sorted(folder.glob("[0-9]*/**/*")) if path.is_file())
    return (path for path in found if "__pycache__" not in path.parts)


def _parsed(path: Path) -> Any:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise UsageError(f"{path} is no model configuration: {error}.", hint="`trtk repo` writes it again.") from error


def _rewrite(config: Any, names: Mapping[str, str], source: Source) -> None:
    """Change a configuration in place: names, what it calls, paths, and the size of the cache."""
    old, config.name = config.name, names.get(config.name, config.name)
    for step in config.ensemble_scheduling.step:
        step.model_name = names.get(step.model_name, step.model_name)
    parameters = config.parameters
    for key, default in CALLED.items():
        if key in parameters or (old == CALLER and default):
            called = parameters[key].string_value or default
            parameters[key].string_value = names.get(called, called)
    for key in PATHS:
        if key in parameters and (path := parameters[key].string_value) and "${" not in path:
            parameters[key].string_value = absolute(path, source)
    if old == ENGINE:
        _fix_cache(parameters, source.kv_tokens)


def _fix_cache(parameters: Any, kv_tokens: int) -> None:
    """Give the cache its number of tokens: a fraction of what is free would depend on who was loaded before."""
    parameters["max_tokens_in_paged_kv_cache"].string_value = str(kv_tokens)
    if "kv_cache_bytes" in parameters:
        del parameters["kv_cache_bytes"]
    if "kv_cache_free_gpu_mem_fraction" in parameters:
        parameters["kv_cache_free_gpu_mem_fraction"].string_value = GPU_FRACTION


def absolute(path: str, source: Source) -> str:
    """Return a path of a repository's parameters, which starts at the repository, from the root."""
    return str((source.repository / path).resolve())


def _settings(text: str, source: Source) -> str:
    """Return model.yaml with the model's absolute path and the cache's number of tokens."""
    import yaml

    settings = yaml.safe_load(text)
    settings["model"] = absolute(settings["model"], source)
    cache = settings.setdefault("kv_cache_config", {})
    cache |= {"max_tokens": source.kv_tokens, "free_gpu_memory_fraction": float(GPU_FRACTION)}
    return json.dumps(settings, indent=2) + "\n"  # JSON is YAML
