"""The size of a checkpoint is known before it is made: for every family, format, layout and rank, to the byte."""

import json
import struct

import pytest

from tests.conftest import ARCHITECTURE_SETTINGS, save_model
from toolkit import convert, models, plan, quant
from toolkit.checkpoint.assignment import assign
from toolkit.plan import tensors
from toolkit.specs import CalibrationSpec, Sharding

pytestmark = pytest.mark.usefixtures("one_thread")

ARCHITECTURES = ["LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", *ARCHITECTURE_SETTINGS]
#: Wide enough for blocks of 128 and groups of 128, in every linear of every family.
WIDE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 322,  # four ranks pad it
}
EXPERTS = {"moe_intermediate_size": 128, "shared_expert_intermediate_size": 256}
CALIBRATION = CalibrationSpec(source="self", samples=1, length=8)


def tensor_bytes(folder):
    """Return the bytes of the tensors of each file, from its own header."""
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        ends = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
        found.append(sum(end - start for start, end in ends))
    return tuple(found)


@pytest.fixture(scope="module")
def source(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    extra = EXPERTS if request.param in {"Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM"} else {}
    save_model(folder, architecture=request.param, **WIDE, **extra)
    return models.locate(str(folder))


def written(source, folder, recipe, **asked):
    """Return (the plan, the bytes of the files that it became)."""
    spec = models.read(source)
    made = plan.conversion(spec, quant.get(recipe), asked=plan.AskedCheckpoint(**asked), calibration=CALIBRATION)
    convert.run(made, source, folder)
    return made, tensor_bytes(folder)


@pytest.mark.parametrize("recipe", [recipe.name for recipe in quant.catalogue()])
@pytest.mark.parametrize("source", ARCHITECTURES, indirect=True)
def test_the_bytes_of_every_family_in_every_format_and_layout_are_predicted(source, recipe, tmp_path):
    for layout in quant.get(recipe).layouts:
        made, found = written(source, tmp_path / layout, recipe, layout=layout)

        assert tensors.checkpoint_bytes(made) == found


RANKS = {
    "tp2-pp2": {"tp": 2, "pp": 2},
    "tp4": {"tp": 4},
    "tp2-ep2": {"tp": 2, "ep": 2},
}


@pytest.mark.parametrize("recipe", ["fp8", "int4_rtn"])
@pytest.mark.parametrize(
    ("source", "ranks"),
    [
        ("LlamaForCausalLM", "tp2-pp2"),
        ("Phi3ForCausalLM", "tp4"),
        ("MixtralForCausalLM", "tp4"),
        ("MixtralForCausalLM", "tp2-ep2"),
        ("Qwen2MoeForCausalLM", "tp2-pp2"),
        ("Qwen2MoeForCausalLM", "tp2-ep2"),
    ],
    indirect=["source"],
)
def test_each_ranks_bytes_are_predicted(source, recipe, ranks, tmp_path):
    made, found = written(source, tmp_path / "out", recipe, sharding=Sharding(**RANKS[ranks]))

    assert tensors.checkpoint_bytes(made) == found


@pytest.mark.parametrize("source", ["LlamaForCausalLM"], indirect=True)
def test_what_stays_in_16_bits_is_counted_as_such(source, tmp_path):
    made, found = written(source, tmp_path / "out", "nvfp4", exclude=("*layers.0.*", "*mlp.proj"), kv_cache="int8")

    assert tensors.checkpoint_bytes(made, assign(made).of) == found
    assert found > tensors.checkpoint_bytes(made)


@pytest.mark.parametrize("source", ["LlamaForCausalLM", "GemmaForCausalLM"], indirect=True)
@pytest.mark.parametrize("layout", ["trtllm", "hf"])
def test_a_tied_head_is_written_twice_in_one_layout_and_once_in_the_other(source, layout, tmp_path):
    is_tied = models.read(source).is_tied
    made, found = written(source, tmp_path / "out", "fp16", layout=layout)
    table = 2 * 322 * 128

    tables = 1 if is_tied and layout == "hf" else 2
    assert found[0] > tables * table
    assert tensors.checkpoint_bytes(made) == found
