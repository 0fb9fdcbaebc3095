"""A conversion that stops between ranks or files goes on there, and ends with the same bytes."""

import json

import pytest

from tests.conftest import save_model
from tests.convert.checkpoints import convert_model
from toolkit.checkpoint import hf_writer
from toolkit.checkpoint.rank_file import RankFile
from toolkit.specs import Sharding

pytestmark = pytest.mark.usefixtures("one_thread")
LAYOUTS = {
    "ranks": {"sharding": Sharding(tp=2, pp=2)},
    "files": {"layout": "hf"},
}


class Stopped(Exception):
    """What a test throws where a machine would lose its power."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("hf")
    save_model(made, num_hidden_layers=3, hidden_size=256, intermediate_size=512)
    return made


@pytest.fixture
def small_files(monkeypatch):
    """Make files of unified checkpoints hold a layer or two of the tiny model."""
    monkeypatch.setattr(hf_writer, "FILE_BYTES", 500_000)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize(
    ("layout", "appends"),
    [("ranks", 1), ("ranks", 2), ("ranks", 5), ("ranks", 9), ("files", 0), ("files", 2), ("files", 4)],
)
def test_the_bytes_are_those_of_an_undisturbed_run(folder, tmp_path, monkeypatch, layout, appends):
    convert_model(folder, tmp_path / "whole", "int4", **LAYOUTS[layout])
    append, left = RankFile.append, iter(range(appends))

    def stopping(self, tensors):
        append(self, tensors)
        if next(left, None) is None:
            raise Stopped

    with monkeypatch.context() as patched:
        patched.setattr(RankFile, "append", stopping)
        with pytest.raises(Stopped):
            convert_model(folder, tmp_path / "out", "int4", **LAYOUTS[layout])
    assert not (tmp_path / "out").exists()
    convert_model(folder, tmp_path / "out", "int4", **LAYOUTS[layout])

    assert files_of(tmp_path / "out") == files_of(tmp_path / "whole")


def files_of(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("small_files")
def test_a_large_unified_checkpoint_is_files_of_bounded_size_with_an_index(folder, tmp_path):
    from transformers import AutoModelForCausalLM

    convert_model(folder, tmp_path / "out", "fp16", layout="hf")

    index = json.loads((tmp_path / "out/model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files == [f"model-{number:05}-of-00005.safetensors" for number in range(1, 6)]
    assert sorted(set(index["weight_map"].values())) == files
    # transformers reads it by the index, and finds every tensor of the original.
    found, original = (
        AutoModelForCausalLM.from_pretrained(path, dtype="float16") for path in (tmp_path / "out", folder)
    )
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in original.state_dict().values())
    assert {name: tensor.tolist() for name, tensor in found.state_dict().items()} == {
        name: tensor.tolist() for name, tensor in original.state_dict().items()
    }
