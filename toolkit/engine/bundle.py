"""What makes a folder start by itself inside the serving image: start.py, what it runs, and what it has to know."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.files import canonical_json, write_text
from toolkit.specs import BuildPlan
from toolkit.templating import directory

ENTRY, PARTS, DOCUMENT = "start.py", "first_start", "bundle.json"
#: Words of a command line that only the start itself knows.
CHECKPOINT_PLACE, OUTPUT_PLACE, TIMING_CACHE_PLACE = "{checkpoint}", "{output}", "{timing_cache}"
#: Where a bundle finds the engine of the GPU that it runs on: a link that its start makes inside the container.
ENGINE_LINK = "/tmp/trtk/engine"
#: The same for its model repository, of which NVIDIA's backend reads a file.
REPOSITORY_LINK = "/tmp/trtk/repository"
SCHEMA = 1


def write_entry(plan: BuildPlan, folder: Path, commands: Mapping[int, Sequence[str]]) -> None:
    """Write the entry script and bundle.json; COMMANDS has what to run on each SM that the bundle may start on."""
    for name, text in entry(plan, commands).items():
        write_text(folder / name, text, mode=0o755 if name == ENTRY else 0o644)


def entry(plan: BuildPlan, commands: Mapping[int, Sequence[str]]) -> dict[str, str]:
    """Return the files of the entry script by their path in a bundle."""
    source = directory() / "bundle"
    scripts = [source / ENTRY, *sorted((source / PARTS).glob("*.py"))]
    texts = {str(path.relative_to(source)): path.read_text(encoding="utf-8") for path in scripts}
    return {**texts, DOCUMENT: canonical_json(document(plan, commands))}


def document(plan: BuildPlan, commands: Mapping[int, Sequence[str]]) -> dict[str, Any]:
    """Return what the entry script has to know; it cannot import toolkit."""
    ranks = plan.limits.tp * plan.limits.pp
    return {
        "schema_version": SCHEMA,
        "flow": plan.flow,
        "quant": plan.conversion.recipe.name,
        "image": plan.release.image,
        "tensorrt_llm": plan.release.tensorrt_llm,
        "tensorrt": plan.release.tensorrt,
        "world_size": ranks,
        "instances": plan.repository.instances.get("tensorrt_llm", 1),
        "rank_weights_bytes": plan.weights_bytes,
        "commands": {str(sm): list(words) for sm, words in sorted(commands.items())},
    }
