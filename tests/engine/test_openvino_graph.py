"""The CPU engine computes what its checkpoint says, with Hugging Face's own model as the judge."""

import json

import numpy as np
import pytest
import torch

from tests.conftest import save_llama
from tests.convert.checkpoints import convert_model, hf_state
from toolkit.engine.checkpoint_reader import CheckpointReader
from toolkit.engine.openvino_graph import decoder_model

pytestmark = pytest.mark.engine
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


class Engine:
    """A compiled stateful model, fed pieces of a sequence."""

    def __init__(self, checkpoint):
        import openvino

        model, self.weights = decoder_model(CheckpointReader(checkpoint))
        exact = {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
        self.request = openvino.Core().compile_model(model, "CPU", exact).create_infer_request()

    def logits(self, ids, pieces):
        """Return float32 logits of ids [batch, length], computed piece after piece over the engine's own KV cache."""
        found, start = [], 0
        for end in pieces:
            inputs = {
                "input_ids": ids[:, start:end].numpy(),
                "attention_mask": np.ones((ids.shape[0], end), dtype=np.int64),
                "position_ids": np.broadcast_to(np.arange(start, end), (ids.shape[0], end - start)).copy(),
                "beam_idx": np.arange(ids.shape[0], dtype=np.int32),
            }
            found.append(torch.tensor(self.request.infer(inputs)["logits"].copy()))
            start = end
        return torch.cat(found, dim=1)


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


@pytest.mark.parametrize(
    "changes",
    [
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
        {"rope_parameters": LLAMA3_SCALING},
        {"num_key_value_heads": 1, "head_dim": 48},
        {"architecture": "MistralForCausalLM", "sliding_window": 16},
    ],
    ids=["biases, tied", "llama3 rope", "multi-query, own head_dim", "sliding window"],
)
def test_variants_of_the_family_compute_what_hugging_face_computes(tmp_path, changes):
    original = save_llama(tmp_path / "hf", **changes)
    convert_model(tmp_path / "hf", tmp_path / "out", "fp16")
    ids = torch.randint(0, 320, (1, 96), generator=torch.Generator().manual_seed(5))

    found = Engine(tmp_path / "out").logits(ids, pieces=(80, 81, 96))

    with torch.inference_mode():
        torch.testing.assert_close(found, original(ids).logits, atol=2e-4, rtol=1e-3)


def test_the_engine_holds_the_checkpoints_own_integers(llama, tmp_path):
    convert_model(llama[0], tmp_path / "out", "int4")
    model, _weights = decoder_model(CheckpointReader(tmp_path / "out"))

    kinds = [node.get_element_type().get_type_name() for node in model.get_ops() if node.get_type_name() == "Constant"]

    assert kinds.count("i4") == 2 * 5  # layers x linears
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["num_hidden_layers"] == 2
