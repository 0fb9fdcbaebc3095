"""The CPU engine computes what its checkpoint says, with Hugging Face's own model as the judge."""

import json

import pytest
import torch

from tests.convert.checkpoints import convert_model, hf_state
from tests.engine.engines import Engine
from toolkit.engine.checkpoint_reader import CheckpointReader
from toolkit.engine.openvino_graph import decoder_model

pytestmark = pytest.mark.engine


def rounded_to_int8(weight):
    """trtllm-build's rule for W8A16: amax/128 per output channel, kept in 16 bits."""
    scale = (weight.abs().amax(1, keepdim=True) / 128).half().float()
    return (weight / scale).round().clamp(-128, 127) * scale


def expected_logits(original, checkpoint, spec, recipe, ids):
    state = hf_state(checkpoint, spec)
    if recipe == "int8":
        state = {name: rounded_to_int8(t) if "_proj.weight" in name else t for name, t in state.items()}
    saved = {name: tensor.clone() for name, tensor in original.state_dict().items()}
    with torch.inference_mode():
        original.load_state_dict(state)
        logits = original(ids).logits.clone()
        original.load_state_dict(saved)
    return logits


@pytest.mark.parametrize("recipe", ["fp16", "int8", "int4", "int4_rtn"])
def test_logits_are_those_of_the_dequantized_checkpoint(llama, tmp_path, recipe):
    folder, original = llama
    spec = convert_model(folder, tmp_path / "out", recipe)
    ids = torch.randint(0, 320, (2, 24), generator=torch.Generator().manual_seed(5))

    found = Engine(tmp_path / "out").logits(ids, pieces=(10, 11, 24))

    torch.testing.assert_close(
        found, expected_logits(original, tmp_path / "out", spec, recipe, ids), atol=2e-4, rtol=1e-3
    )


def test_the_engine_holds_the_checkpoints_own_integers(llama, tmp_path):
    convert_model(llama[0], tmp_path / "out", "int4")
    model, _weights = decoder_model(CheckpointReader(tmp_path / "out"))

    kinds = [node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"]

    assert kinds.count("i4") == 2 * 5  # layers x linears
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["num_hidden_layers"] == 2
