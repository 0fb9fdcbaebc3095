"""What ENGINE means, with folders as `trtk build` leaves them."""

import json
import os
from pathlib import Path

import pytest

from toolkit.errors import MissingError, UsageError
from toolkit.serve import targets
from toolkit.serve.targets import Target
from toolkit.specs import EngineManifest, to_json


def built(folder, kind="openvino", *, models=("ensemble", "tensorrt_llm"), is_deferred=False, age_s=0):
    for model in models:
        (folder / "model_repository" / model).mkdir(parents=True)
        (folder / "model_repository" / model / "config.pbtxt").write_text("")
    folder.mkdir(parents=True, exist_ok=True)
    manifest = EngineManifest(
        schema_version=1,
        kind=kind,
        name=folder.name,
        plan={"gpu": {"title": "NVIDIA RTX A4500"}, "release": {"image": "nvcr.io/x:26.07"}},
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

    assert targets.find(Path("engines/demo-int4")) == Target(
        name="demo-int4", repository=tmp_path / "engines/demo-int4/model_repository", probe_model="ensemble"
    )


def test_without_a_name_the_newest_engine_is_served(tmp_path):
    built(Path("engines/old"), age_s=60)
    built(Path("engines/new"))
    built(Path("engines/older"), age_s=90)

    assert targets.find(None) == Target(
        name="new", repository=tmp_path / "engines/new/model_repository", probe_model="ensemble", was_chosen=True
    )


def test_a_bare_repository_without_an_ensemble_is_served_without_a_probe(tmp_path):
    (tmp_path / "mine/resnet").mkdir(parents=True)
    (tmp_path / "mine/resnet/config.pbtxt").write_text("")

    assert targets.find(Path("mine")) == Target(name="mine", repository=tmp_path / "mine", probe_model="")


def test_a_bundle_for_a_gpu_says_where_it_can_be_served():
    built(Path("engines/a4500"), "trtllm", is_deferred=True)

    with pytest.raises(MissingError) as refused:
        targets.find(Path("engines/a4500"))

    assert str(refused.value) == (
        "engines/a4500 holds a bundle, whose engine start.py compiles on the target, for NVIDIA RTX A4500; "
        "the embedded server runs on the CPU."
    )
    assert refused.value.hint == (
        "Serve it on a machine with NVIDIA RTX A4500, in nvcr.io/x:26.07; here: trtk build demo --gpu cpu"
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
