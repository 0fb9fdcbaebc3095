"""A model repository as its checks see it: every model's configuration read, and what it is held against."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit.specs import LlmApi

CONFIG, SETTINGS = "config.pbtxt", "model.yaml"
#: Kinds of models besides those with a table in toolkit/repository/parameters.
ENSEMBLE, LLM_API, UNKNOWN = "ensemble", "llmapi", "python"
ENGINES = ("tensorrt_llm", "openvino")
CALLERS = ("preprocessing", "postprocessing", "tensorrt_llm_bls")
#: What the serving image, or the start of a bundle inside it, puts in place.
OF_THE_IMAGE = ("/opt/tritonserver/", "/app/", "/tmp/trtk/")


@dataclass(frozen=True, kw_only=True)
class EngineFacts:
    """What an engine was built for, from its plan or its config.json."""

    tensorrt_llm: str
    max_batch_size: int
    max_beam_width: int = 1
    tp: int = 1
    pp: int = 1
    is_context_paged: bool = True  # without it, no KV reuse and no chunked context
    speculative: str = ""  # draft_tokens_external, lookahead_decoding, medusa, eagle
    logits_dtype: str = "float32"

    @property
    def ranks(self) -> int:
        """GPUs of one instance."""
        return self.tp * self.pp


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """What a repository is held against, besides itself."""

    tensorrt_llm: str = "1.2.1"  # of the server
    api: LlmApi | None = None  # what its LLM API takes
    engine: EngineFacts | None = None  # of tensorrt_llm; None: read where the configuration says it lies
    mounts: tuple[tuple[str, str], ...] = ()  # folder here → folder as the server sees it
    ports: Mapping[str, int] = field(default_factory=dict)  # --grpc-port → 8001
    busy_ports: Mapping[str, str] = field(default_factory=dict)  # --grpc-port → who holds it, in a sentence


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model of a repository."""

    name: str
    text: str
    config: Any  # a parsed ModelConfig; None where the text is none
    fault: str  # of the parser
    role: str
    paths: frozenset[str]  # files and folders below the model's own
    settings: Any = None  # what model.yaml says
    settings_fault: str = ""
    python: str = ""  # every line of it

    def value(self, key: str, default: str = "") -> str:
        """Return a parameter's text; what is missing, empty or left over from a template is the default."""
        text: str = self.config.parameters[key].string_value if key in self.config.parameters else ""
        return default if not text or text.startswith("${") else text


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A repository and its surroundings."""

    folder: Path | None  # where it is or will be; None: nobody knows yet
    models: Mapping[str, Model]
    around: Surroundings
    coming: frozenset[Path] = frozenset()  # what will be there once it is written

    @property
    def parsed(self) -> dict[str, Model]:
        """The models whose configuration is one."""
        return {name: model for name, model in self.models.items() if model.config is not None}

    def with_role(self, *roles: str) -> list[Model]:
        """Return the parsed models of some kinds."""
        return [model for model in self.parsed.values() if model.role in roles]

    def is_there(self, place: Path) -> bool:
        """Return whether something is at a place of this machine, or will be."""
        return place.exists() or place.resolve() in self.coming

    def on_disk(self, path: str) -> Path | None:
        """Return where a path of the server lies on this machine; None where nothing says so."""
        if not path.startswith("/"):
            return (self.folder / path).resolve() if self.folder else None
        for here, there in self.around.mounts:
            if PurePosixPath(path).is_relative_to(there):
                return Path(here) / PurePosixPath(path).relative_to(there)
        return None if self.around.mounts or path.startswith(OF_THE_IMAGE) else Path(path)


def in_folder(folder: Path, around: Surroundings) -> Seen:
    """Read a repository from disk: every folder in it that has a config.pbtxt."""
    models = {}
    for file in sorted(folder.glob(f"*/{CONFIG}")):
        root = file.parent
        paths = {str(path.relative_to(root)) + "/" * path.is_dir() for path in root.rglob("*") if path.exists()}
        models[root.name] = _model(root.name, paths, functools.partial(_text_below, root))
    return Seen(folder=folder, models=models, around=around)


def in_files(files: Mapping[str, str], around: Surroundings, folder: Path | None = None) -> Seen:
    """Read a repository that is not written yet: path → text."""
    names = sorted({path.split("/")[0] for path in files if path.endswith(f"/{CONFIG}")})
    models = {}
    for name in names:
        own = {path.removeprefix(f"{name}/") for path in files if path.startswith(f"{name}/")}
        folders = {f"{parent}/" for path in own for parent in PurePosixPath(path).parents if str(parent) != "."}
        texts = {path: files[f"{name}/{path}"] for path in own}
        models[name] = _model(name, own | folders, texts.__getitem__)
    coming = frozenset((folder / path).resolve() for path in files) if folder else frozenset()
    return Seen(folder=folder, models=models, around=around, coming=coming)


def _text_below(root: Path, path: str) -> str:
    return (root / path).read_text(encoding="utf-8", errors="replace")


def _model(name: str, paths: Iterable[str], read: Callable[[str], str]) -> Model:
    known = frozenset(paths)
    try:
        text = read(CONFIG)
    except OSError as error:  # a folder of that name, say
        text, config, fault = "", None, str(error.strerror)
    else:
        config, fault = _parsed(text)
    python = "\n".join(read(path) for path in sorted(known) if path.endswith(".py"))
    yamls = sorted(path for path in known if path.endswith(f"/{SETTINGS}") and path.split("/")[0].isdigit())
    settings, settings_fault = _yaml(read(yamls[-1])) if yamls else (None, "")
    return Model(
        name=name,
        text=text,
        config=config,
        fault=fault,
        role=LLM_API if yamls else _role(name, config, python),
        paths=known,
        settings=settings,
        settings_fault=settings_fault,
        python=python,
    )


def _parsed(text: str) -> tuple[Any, str]:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig()), ""
    except text_format.ParseError as error:
        return None, str(error)


def _yaml(text: str) -> tuple[Any, str]:
    import yaml

    try:
        return yaml.safe_load(text), ""
    except yaml.YAMLError as error:
        return None, " ".join(str(error).split())


def _role(name: str, config: Any, python: str) -> str:
    """Return what a model is: by its backend, and by its name where Python is behind it."""
    if config is None:
        return UNKNOWN
    if config.ensemble_scheduling.step or config.platform == ENSEMBLE:
        return ENSEMBLE
    if config.backend == "tensorrtllm":
        return "tensorrt_llm"
    base = name.rsplit(".", 1)[-1]  # where several repositories are one, a name says whose the model is
    if base in CALLERS:
        return base
    if "openvino_genai" in python:
        return "openvino"
    return "tensorrt_llm" if base == "tensorrt_llm" else UNKNOWN
