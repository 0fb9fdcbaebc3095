"""`trtk doctor --image`: a folder that is an image's root, and a container on a real daemon."""

import json

import pytest
from click.testing import CliRunner

from tests.containers.images import image
from tests.machine.test_probing import KNOWN, RENDERED, TOOL, builder_help, template
from toolkit.cli import main
from toolkit.cli.probing import release_of
from toolkit.machine import image_contents
from toolkit.machine.probing import Contents

MODELS = "app/all_models/inflight_batcher_llm"


def doctor(*line, code=0):
    result = CliRunner().invoke(main, ["doctor", "--json", *map(str, line)])
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout), result.stderr


@pytest.fixture
def root(tmp_path):
    """A folder as an image of release 26.07 has it."""
    for model, text in {**RENDERED, "tensorrt_llm": template()}.items():
        (tmp_path / MODELS / model).mkdir(parents=True)
        (tmp_path / MODELS / model / "config.pbtxt").write_text(text)
    for package in ("tensorrt_llm-1.2.1", "tensorrt-10.14.1.48.post1"):
        (tmp_path / f"usr/local/lib/python3.12/dist-packages/{package}.dist-info").mkdir(parents=True)
    (tmp_path / "trtllm-build.help").write_text(builder_help(TOOL.names()))
    return tmp_path


def test_a_folder_that_is_as_known_is_known(root):
    document, _ = doctor("--image", root)

    assert (document["release"], document["is_known"]) == ("26.07", True)
    assert {check["status"] for check in document["checks"]} == {"ok"}


def test_what_differs_is_exit_code_4_with_its_name(root):
    (root / "trtllm-build.help").write_text(builder_help(["max_batch_size", "checkpoint_dir"]))

    document, said = doctor("--image", root, code=4)

    assert document["is_known"] is False
    assert said.startswith(f"Error: {root} is not what trtk knows as 26.07: trtllm-build --help.\nHint: ")


def test_the_release_is_asked_named_or_found_in_the_contents():
    name = "nvcr.io/nvidia/tritonserver:25.08-trtllm-python-py3"
    old = Contents(tensorrt_llm="0.20.0")

    assert release_of("x", old, asked="26.01").name == "26.01"
    assert release_of(name, old, asked="auto").name == "25.08"
    assert release_of("x", old, asked="auto").name == "25.07"  # the newest with 0.20.0
    assert release_of("x", Contents(), asked="auto").name == "26.07"


def test_a_folder_that_is_no_image_is_said(tmp_path):
    result = CliRunner().invoke(main, ["doctor", "--image", str(tmp_path)])

    assert result.exit_code == 2
    assert result.stderr.startswith(f"Error: {tmp_path} holds no app/all_models/inflight_batcher_llm.\n")


def test_what_a_container_tells_is_taken_apart():
    text = (
        "=====trtk:config /app/all_models/inflight_batcher_llm/ensemble/config.pbtxt\nname: 1\n\n"
        "=====trtk:help\nTraceback\n  frame\nImportError: libcuda.so.1: cannot open shared object file\n"
        "=====trtk:status 1\n=====trtk:version tensorrt_llm\n1.2.1\n=====trtk:version tensorrt\n"
    )

    assert image_contents.told(text) == Contents(
        configs={"ensemble": "name: 1\n\n"},
        builder_fault="frame ImportError: libcuda.so.1: cannot open shared object file".replace("frame", "  frame"),
        tensorrt_llm="1.2.1",
    )


#: argparse with a release's flags: what the real help is made with.
PROGRAM = """#!/usr/local/bin/python3
import argparse, json, pathlib
parser = argparse.ArgumentParser(prog="trtllm-build")
for name in json.loads(pathlib.Path("/opt/flags.json").read_text()):
    parser.add_argument("--" + name)
parser.parse_args()
"""


@pytest.mark.docker
def test_an_image_is_asked_in_a_container(docker_daemon):
    files = {f"{model}.pbtxt": text for model, text in KNOWN.configs.items()}
    packages = {
        name: f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n" for name, version in PACKAGES.items()
    }
    lines = [f"COPY {model}.pbtxt /{MODELS}/{model}/config.pbtxt" for model in KNOWN.configs]
    lines += [f"COPY {name}.metadata /opt/packages/{name}-1.dist-info/METADATA" for name in packages]
    lines += ["COPY trtllm-build /usr/local/bin/trtllm-build", "COPY flags.json /opt/flags.json"]
    lines += ["ENV PYTHONPATH=/opt/packages PATH=/usr/local/bin:/bin"]
    name = image(
        docker_daemon.client,
        "trtk-test/probe:latest",
        "\n".join(lines),
        {
            **files,
            **{f"{name}.metadata": text for name, text in packages.items()},
            "trtllm-build": PROGRAM,
            "flags.json": json.dumps([flag for flag in TOOL.names() if flag != "kv_cache_type"]),
        },
    )

    document, _ = doctor("--image", name, code=4)

    found = {check["name"]: check for check in document["checks"] if check["status"] != "ok"}
    assert {line: check["found"] for line, check in found.items()} == {
        "trtllm-build --help": "the image does not take: kv_cache_type"
    }
    assert docker_daemon.client.containers.list(all=True, filters={"label": "trtk.job"}) == []


PACKAGES = {"tensorrt_llm": "1.2.1", "tensorrt": "10.14.1.48"}
