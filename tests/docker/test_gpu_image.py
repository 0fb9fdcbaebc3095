"""The GPU image around a bundle, on a stand-in for NVIDIA's: it holds the bundle, compiles once, and becomes Triton."""

import io
import json
import sys
import tarfile
import time
from pathlib import Path

import pytest

from tests.containers.images import base_image
from tests.engine.serving_image import Image
from tests.engine.test_first_start import make_bundle

pytestmark = pytest.mark.docker
DOCKERFILE = Path(__file__).parents[2] / "docker" / "gpu" / "Dockerfile"
KEY = "sm86-trtllm1.2.1-trt10.14.1.48"
#: What is written there stays: Docker's volume, made at the first run.
VOLUME = "trtk-test-engines"


@pytest.fixture
def serving(tmp_path):
    """An image with stand-ins of NVIDIA's programs; their folder, which containers write to."""
    folder = Image(tmp_path / "image").folder
    for program in (folder / "bin").iterdir():
        program.write_text(program.read_text().replace(f"#!{sys.executable}", "#!/usr/local/bin/python3"))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o777)
    return folder


@pytest.fixture
def image(docker_daemon, tmp_path):
    bundle = make_bundle(tmp_path / "bundle")
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as archive:
        archive.add(DOCKERFILE, "Dockerfile")
        archive.add(bundle, "engines/small")
    context.seek(0)
    arguments = {"IMAGE": base_image(docker_daemon.client), "BUNDLE": "engines/small"}
    made, _ = docker_daemon.client.images.build(
        fileobj=context, custom_context=True, tag="trtk-test/gpu:small", buildargs=arguments, rm=True, forcerm=True
    )
    return made


def run(client, image, folder):
    """Run the image as its Dockerfile says, with the engines in a volume; return exit code and output."""
    container = client.containers.create(
        image.id,
        environment={
            "IMAGE": "/opt/image",
            "PATH": "/opt/image/bin:/usr/local/bin:/bin",
            "PYTHONPATH": "/opt/image/packages",
            "TRTK_ENGINES": "/engines",
        },
        volumes={str(folder): {"bind": "/opt/image"}, VOLUME: {"bind": "/engines"}},
        read_only=True,
        tmpfs={"/tmp": "exec"},
        cap_drop=["ALL"],
        security_opt=["no-new-privileges:true"],
        network_mode="none",
    )
    try:
        container.start()
        return container.wait(timeout=60)["StatusCode"], container.logs().decode()
    finally:
        container.remove(force=True)


def test_it_compiles_once_into_its_volume_and_becomes_triton(docker_daemon, serving, image):
    client = docker_daemon.client
    config = image.attrs["Config"]
    assert (config["User"], config["Cmd"], config["StopSignal"]) == (
        "1000:1000",
        ["python3", "/bundle/start.py"],
        "SIGTERM",
    )
    try:
        began = time.monotonic()
        first, second = run(client, image, serving), run(client, image, serving)
        assert time.monotonic() - began < 60
    finally:
        client.volumes.get(VOLUME).remove(force=True)

    assert first[0] == 0, first[1]
    assert second[0] == 0, second[1]
    assert len((serving / "builds.log").read_text().splitlines()) == 1
    assert f"The engine {KEY} is there." in second[1]
    said = json.loads(second[1].splitlines()[-1])
    assert said["line"][:2] == ["tritonserver", "--model-repository=/bundle/model_repository"]
