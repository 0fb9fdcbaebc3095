"""An image against what trtk knows: what is in it, which release it should be, and what trtk would write for that."""

from __future__ import annotations

import contextlib
from pathlib import Path

from toolkit import containers, releases, repository
from toolkit.errors import UnknownName
from toolkit.machine import image_contents, probing
from toolkit.machine.checks import Check
from toolkit.machine.probing import Contents
from toolkit.specs import Progress, Release, RepositorySpec, no_progress

#: Any engine-flow repository will do: names of tensors and keys do not hang on a model.
REPOSITORY = RepositorySpec(
    layout="inflight_batcher",
    engine_backend="tensorrtllm",
    tokenizer_dir="../tokenizer",
    engine_dir="/tmp/trtk/engine",
    max_batch_size=8,
    max_seq_len=2048,
    max_num_tokens=2048,
    parameters={"tensorrt_llm": {"max_tokens_in_paged_kv_cache": "2048"}},
)
CONFIG = "config.pbtxt"


def contents_of(image: str, *, progress: Progress = no_progress) -> Contents:
    """Return what is in an image, or in the folder that is its root."""
    if Path(image).is_dir():
        return image_contents.in_folder(Path(image))
    with contextlib.closing(containers.connect()) as daemon:
        return image_contents.in_image(daemon, image, progress=progress)


def release_of(image: str, contents: Contents, *, asked: str) -> Release:
    """Return the release that an image is held against: the asked one, its own by name or by contents, the default."""
    if asked != releases.AUTO:
        return releases.get(asked)
    with contextlib.suppress(UnknownName):
        return releases.get(image)
    same = [known for known in releases.catalogue() if known.tensorrt_llm == contents.tensorrt_llm]
    return same[0] if same else releases.default()


def compare(contents: Contents, release: Release) -> list[Check]:
    """Return every line of the comparison."""
    files = repository.render(REPOSITORY)
    rendered = {Path(path).parent.name: text for path, text in files.items() if Path(path).name == CONFIG}
    return probing.compare(contents, release=release, tool=releases.build_tool_of(release), rendered=rendered)
