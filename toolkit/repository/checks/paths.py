"""9: what the configuration names is there."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.repository import parameters
from toolkit.repository.check import Check
from toolkit.repository.engines import facts_of
from toolkit.repository.seen import LLM_API, OF_THE_IMAGE, Model, Seen

#: Files without which a folder is not what a parameter means; one of them is enough.
HOLDS = {
    "tokenizer_dir": ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
    "gpt_model_path": ("config.json", "openvino_model.xml"),
}


def run(seen: Seen) -> Iterator[str]:
    """Name folders and files that are not there."""
    for model in seen.parsed.values():
        for key, path in _paths(model).items():
            yield from _path(model, key, path, seen)
    for model in seen.with_role("tensorrt_llm"):
        yield from _ranks(model, seen)


def _paths(model: Model) -> dict[str, str]:
    if model.role == LLM_API and isinstance(model.settings, dict):
        settings = {key: str(model.settings[key]) for key in ("model", "tokenizer") if model.settings.get(key)}
        return {key: path for key, path in settings.items() if not _is_hub_name(path)}
    table = parameters.table(model.role)
    named = {key: model.value(key) for key, one in table.items() if one.kind == "path"}
    return {key: path for key, path in named.items() if path}


def _is_hub_name(path: str) -> bool:
    """Return whether a model is named as on the Hugging Face hub: owner/name."""
    return not path.startswith((".", "/")) and path.count("/") == 1


def _path(model: Model, key: str, path: str, seen: Seen) -> Iterator[str]:
    if model.config.backend == "tensorrtllm" and not path.startswith("/"):
        yield f"{model.name}: {key} is {path}; NVIDIA's backend takes absolute paths alone."
        return
    if seen.around.mounts and path.startswith("/") and seen.on_disk(path) is None and not _is_of_the_image(path):
        yield f"{model.name}: {key} is {path}, which is below no --mount."
        return
    place = seen.on_disk(path)
    if place is None or (not seen.is_there(place) and _is_doubtful(path, seen)):
        return
    where = "" if str(place) == path else f" ({place} here)"
    if not seen.is_there(place):
        yield f"{model.name}: {key} is {path}{where}, which is not there."
    elif place.is_dir() and key in HOLDS and not any((place / name).is_file() for name in HOLDS[key]):
        yield f"{model.name}: {key} is {path}{where}, which has no {' or '.join(HOLDS[key])}."


def _is_of_the_image(path: str) -> bool:
    return path.startswith(OF_THE_IMAGE)


def _is_doubtful(path: str, seen: Seen) -> bool:
    """Return whether a path may be the server's own: absolute, and nothing says how it is mounted."""
    return path.startswith("/") and not seen.around.mounts


def _ranks(model: Model, seen: Seen) -> Iterator[str]:
    folder = seen.on_disk(model.value("gpt_model_path", "/opt/tritonserver/none"))
    facts = facts_of(model, seen)
    if folder is None or facts is None or not (folder / "config.json").is_file():
        return
    missing = [f"rank{rank}.engine" for rank in range(facts.ranks) if not (folder / f"rank{rank}.engine").is_file()]
    if missing:
        yield f"{model.name}: {folder} has no {', '.join(missing)}."


def _left_out(seen: Seen) -> str:
    def is_unknown(path: str) -> bool:
        place = seen.on_disk(path)
        return place is None or (not seen.is_there(place) and _is_doubtful(path, seen))

    paths = {path for model in seen.parsed.values() for path in _paths(model).values()}
    unseen = sorted(path for path in paths if not _is_of_the_image(path) and is_unknown(path))
    return f"{', '.join(unseen)}: not on this machine; --mount HOST:CONTAINER says where it lies" if unseen else ""


CHECK = Check(number=9, name="paths", title="what is named is there", run=run, left_out=_left_out)
