"""What ENGINE means, with folders as `trtk build` leaves them."""

import json
import os
from pathlib import Path

import pytest

from toolkit.errors import MissingError, UsageError
from toolkit.serve import backend, targets
from toolkit.serve.targets import Artefact, Target
from toolkit.specs import EngineManifest, ServeSpec, to_json


def built(folder, kind="openvino", *, models=("ensemble", "tensorrt_llm"), is_deferred=False, age_s=0):
    for model in models:
        (folder / "model_repository" / model).mkdir(parents=True)
        (folder / "model_repository" / model / "config.pbtxt").write_text("")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = EngineManifest(
        schema_version=1,
        kind=kind,
        name=folder.name,
        plan={
            "gpu": {"title": "NVIDIA RTX A4500", "name": "a4500", "sm": 86},
            "release": {"image": "nvcr.io/x:26.07"},
            "limits": {"tp": 2, "pp": 1},
        },
        model={},
        files=(),
        durations_s={},
        tool_versions={},
        is_deferred=is_deferred,
    )
    path = folder / "manifest.json"
    path.write_text(json.dumps(to_json(manifest)))
    os.utime(path, (1e9 - age_s, 1e9 - age_s))


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_a_built_engine_is_its_repository_and_is_probed_at_the_ensemble(tmp_path):
    built(Path("engines/demo-int4"))

    folder = tmp_path / "engines/demo-int4"
    assert targets.find(Path("engines/demo-int4")) == Target(
        name="demo-int4",
        repository=folder / "model_repository",
        probe_model="ensemble",
        artefact=Artefact(
            folder=folder,
            kind="openvino",
            gpu="NVIDIA RTX A4500",
            gpu_name="a4500",
            sm=86,
            image="nvcr.io/x:26.07",
            world_size=2,
            loaded_bytes=0,
        ),
    )


def test_without_a_name_the_newest_engine_is_served(tmp_path):
    built(Path("engines/old"), age_s=60)
    built(Path("engines/new"))
    built(Path("engines/older"), age_s=90)

    found = targets.find(None)

    assert (found.name, found.repository, found.was_chosen) == ("new", tmp_path / "engines/new/model_repository", True)


def test_a_bare_repository_without_an_ensemble_is_served_without_a_probe(tmp_path):
    (tmp_path / "mine/resnet").mkdir(parents=True)
    (tmp_path / "mine/resnet/config.pbtxt").write_text("")

    assert targets.find(Path("mine")) == Target(name="mine", repository=tmp_path / "mine", probe_model="")


def test_the_embedded_server_refuses_a_gpus_engine_and_says_what_serves_it():
    built(Path("engines/a4500"), "trtllm", is_deferred=True)
    found = targets.find(Path("engines/a4500"))
    spec = ServeSpec(
        name="x", repository=str(found.repository), backend="embedded", folder="engines/a4500", kind="trtllm"
    )

    with pytest.raises(MissingError) as refused:
        backend.pick("embedded").check(spec)

    assert str(refused.value) == (
        "engines/a4500 holds a bundle, whose engine is compiled on the target, for NVIDIA RTX A4500; "
        "the embedded server runs on the CPU."
    )
    assert refused.value.hint == (
        "Serve it on a machine with NVIDIA RTX A4500: --backend docker; here: trtk build demo --gpu cpu"
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: None, "There is no folder engines/x."),
        (lambda: built(Path("engines/x"), "checkpoint"), "engines/x holds a checkpoint, which no server can run yet."),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_command_that_helps(make, message):
    make()

    with pytest.raises(UsageError) as refused:
        targets.find(Path("engines/x"))

    assert str(refused.value) == message
    assert "`trtk build`" in refused.value.hint


def test_nothing_to_serve_is_said():
    with pytest.raises(UsageError, match="There is nothing to serve"):
        targets.find(None)


@pytest.mark.parametrize("damage", [{"limits": 3}, {"gpu": "a4500"}, {"limits": {"tp": None}}, {"repository": []}])
def test_a_damaged_plan_is_one_sentence(damage):
    built(Path("engines/demo"))
    path = Path("engines/demo/manifest.json")
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "plan": {**document["plan"], **damage}}))

    with pytest.raises(UsageError, match="The plan in .*manifest.json is damaged: "):
        targets.find(Path("engines/demo"))
