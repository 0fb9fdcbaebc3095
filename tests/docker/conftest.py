"""The image of docker/cpu with a tiny engine in it, built once."""

import os
import tarfile
import tempfile
from pathlib import Path

import pytest

from tests.conftest import save_llama
from tests.containers.images import base_image
from tests.containers.wheels import wheels_of
from tests.e2e.conftest import run_trtk
from toolkit.registry import toml_document

PROJECT = Path(__file__).parents[2]
SOURCES = ("constraints.txt", "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "toolkit", "templates")
DOCKERFILE = "docker/cpu/Dockerfile"
#: Long enough for an answer that nobody waits for to the end.
POSITIONS = 16384


@pytest.fixture(scope="session")
def engine(tmp_path_factory):
    """A tiny model's CPU engine; it does not know how to stop, so an answer is as long as was asked."""
    folder = tmp_path_factory.mktemp("cpu-image")
    save_llama(folder / "hf", max_position_embeddings=POSITIONS)
    options = ("--gpu", "cpu", "--quant", "fp16", "--max-seq-len", str(POSITIONS), "-o", folder / "engine")
    code, _, said = run_trtk("build", folder / "hf", *options, env={"TRTK_CACHE": str(folder / "cache")})
    assert code == 0, said
    return folder / "engine"


@pytest.fixture(scope="session")
def image(docker_daemon, engine, tmp_path_factory):
    """The image of docker/cpu/Dockerfile with the engine in it, made with no network from what is installed here."""
    project = toml_document(PROJECT / "pyproject.toml")
    needed = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["serve"],
        *project["build-system"]["requires"],
    ]
    cache = os.environ.get("TRTK_TEST_CACHE") or str(tmp_path_factory.getbasetemp())
    wheels = wheels_of([line for line in needed if "tomli" not in line], Path(cache) / "wheels")
    with tempfile.TemporaryFile() as context:
        with tarfile.open(fileobj=context, mode="w") as archive:
            for name in (*SOURCES, DOCKERFILE):
                archive.add(PROJECT / name, name, filter=_without_leftovers)
            archive.add(wheels, "wheels")
            archive.add(engine, "engines/tiny")
        context.seek(0)
        made, _ = docker_daemon.client.images.build(
            fileobj=context,
            custom_context=True,
            dockerfile=DOCKERFILE,
            tag="trtk-test/cpu:tiny",
            network_mode="none",
            buildargs={
                "BASE_IMAGE": base_image(docker_daemon.client),
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": "/source/wheels",
                "ENGINE": "engines/tiny",
            },
            rm=True,
            forcerm=True,
        )
    return made


def _without_leftovers(entry):
    return None if "__pycache__" in entry.name else entry
