"""The compiled graph of every family computes what its checkpoint says: Hugging Face's model is the judge."""

import pytest
import torch

from tests.conftest import save_model
from tests.convert.checkpoints import convert_model
from tests.engine.engines import Engine
from toolkit import models
from toolkit.checkpoint.trtllm_reader import TrtllmCheckpoint
from toolkit.forward.decoder import Decoder

pytestmark = pytest.mark.engine
LENGTH = 96
PIECES = (80, 81, LENGTH)


def rope(rope_type: str, **settings) -> dict:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0, **settings}}


LONG = {
    "original_max_position_embeddings": LENGTH,
    "short_factor": [1.0 + 0.1 * i for i in range(16)],
    "long_factor": [2.0 + 0.2 * i for i in range(16)],
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
VARIANTS = {
    "llama, biases, tied": {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    "llama, llama3 rope": rope("llama3", **LLAMA3),
    "llama, linear rope": rope("linear", factor=4.0),
    "llama, yarn": rope("yarn", factor=4.0, original_max_position_embeddings=64),
    "llama, dynamic rope": rope("dynamic", factor=2.0),
    "llama, multi-query, own head_dim": {"num_key_value_heads": 1, "head_dim": 48},
    "mistral, window": {"architecture": "MistralForCausalLM", "sliding_window": 16},
    "mixtral, window": {"architecture": "MixtralForCausalLM", "sliding_window": 16},
    "qwen2": {"architecture": "Qwen2ForCausalLM"},
    "qwen2, window from layer 1 on": {
        "architecture": "Qwen2ForCausalLM",
        "use_sliding_window": True,
        "sliding_window": 16,
        "num_hidden_layers": 3,
        "max_window_layers": 1,
    },
    "qwen2-moe": {"architecture": "Qwen2MoeForCausalLM"},
    "qwen2-moe, normalised": {"architecture": "Qwen2MoeForCausalLM", "norm_topk_prob": True},
    "qwen3": {"architecture": "Qwen3ForCausalLM", "head_dim": 48},
    "qwen3-moe": {"architecture": "Qwen3MoeForCausalLM"},
    "gemma": {"architecture": "GemmaForCausalLM"},
    "gemma2, attention without cap": {"architecture": "Gemma2ForCausalLM", "attn_logit_softcapping": None},
    "gemma3": {"architecture": "Gemma3ForCausalLM", "num_hidden_layers": 3},
    "gemma3, linear rope": {
        "architecture": "Gemma3ForCausalLM",
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 8.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "phi3, window": {"architecture": "Phi3ForCausalLM", "sliding_window": 16},
    "phi3, longrope": {"architecture": "Phi3ForCausalLM", **rope("longrope", **LONG)},
    "phi4, tied, half rotated": {
        "architecture": "Phi3ForCausalLM",
        "tie_word_embeddings": True,
        **rope("default", partial_rotary_factor=0.5),
    },
}


def random_ids(length: int = LENGTH) -> torch.Tensor:
    return torch.randint(0, 320, (1, length), generator=torch.Generator().manual_seed(5))


def with_stored_norms(model):
    """Round Gemma's norms as the file does, which holds 1 + weight in 16 bits."""
    if "Gemma" in type(model).__name__:
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("norm.weight"):
                    weight.copy_((1 + weight).half().float() - 1)
    return model


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_are_hugging_faces(tmp_path, changes):
    original = with_stored_norms(save_model(tmp_path / "hf", **changes))
    convert_model(tmp_path / "hf", tmp_path / "out", "fp16")

    found = Engine(tmp_path / "out", max_seq_len=LENGTH).logits(random_ids(), PIECES)

    with torch.inference_mode():
        torch.testing.assert_close(found, original(random_ids()).logits, atol=2e-5, rtol=1e-4)


def torch_logits(folder, spec, ids):
    """Return what torch computes from the checkpoint's dequantized linears."""
    checkpoint = TrtllmCheckpoint(folder, models.family_of(spec.architecture).tensors, spec)
    decoder = Decoder(spec, max_length=ids.shape[1])
    with torch.inference_mode():
        hidden = checkpoint.embed(ids)
        for index in range(spec.num_layers):
            hidden = decoder.layer(checkpoint.layer(index), hidden)
        return decoder.logits(hidden, checkpoint.final_norm(), checkpoint.head().float())


QUANTIZED = ["qwen2", "qwen2-moe", "qwen3-moe", "mixtral, window", "gemma3", "phi3, window"]
#: AWQ's calibration takes seconds: one mixture and one family with norms of its own.
CALIBRATED = [("mixtral, window", "int4"), ("gemma3", "int4")]


@pytest.mark.parametrize(
    ("name", "recipe"), [*((name, recipe) for name in QUANTIZED for recipe in ("int8", "int4_rtn")), *CALIBRATED]
)
def test_quantized_families_are_what_their_dequantized_linears_compute(tmp_path, name, recipe):
    save_model(tmp_path / "hf", **VARIANTS[name])
    options = {} if recipe == "int8" else {"group_size": 64}
    spec = convert_model(tmp_path / "hf", tmp_path / "out", recipe, **options)

    found = Engine(tmp_path / "out").logits(random_ids(), PIECES)

    torch.testing.assert_close(found, torch_logits(tmp_path / "out", spec, random_ids()), atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("recipe", ["fp16", "int8", "int4_rtn"])
def test_bfloat16_checkpoints_are_what_they_say(tmp_path, recipe):
    save_model(tmp_path / "hf", architecture="Gemma3ForCausalLM")
    spec = convert_model(tmp_path / "hf", tmp_path / "out", recipe, dtype="bfloat16")

    found = Engine(tmp_path / "out").logits(random_ids(), PIECES)

    torch.testing.assert_close(found, torch_logits(tmp_path / "out", spec, random_ids()), atol=2e-4, rtol=1e-3)
