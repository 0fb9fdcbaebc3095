"""A 16-bit checkpoint of every family, mapped back to Hugging Face's names, is the model that it was made from."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import read_back, save_model
from tests.convert.checkpoints import convert_model, hf_state
from toolkit.errors import PlanInfeasible

VARIANTS = {
    "llama": ("LlamaForCausalLM", {}),
    "llama, biases, tied": (
        "LlamaForCausalLM",
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True, "head_dim": 48},
    ),
    "mistral": ("MistralForCausalLM", {"sliding_window": 16}),
    "mixtral": ("MixtralForCausalLM", {}),
    "qwen2": ("Qwen2ForCausalLM", {}),
    "qwen2, tied": ("Qwen2ForCausalLM", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3ForCausalLM", {}),
    "qwen2-moe": ("Qwen2MoeForCausalLM", {}),
    "qwen3-moe": ("Qwen3MoeForCausalLM", {"num_experts": 8, "num_experts_per_tok": 3}),
    "gemma": ("GemmaForCausalLM", {"num_key_value_heads": 1}),
    "gemma2": ("Gemma2ForCausalLM", {}),
    "gemma3": ("Gemma3ForCausalLM", {}),
    "phi3": ("Phi3ForCausalLM", {"num_key_value_heads": 4}),
    "phi4-mini": ("Phi3ForCausalLM", {"partial_rotary_factor": 0.75, "tie_word_embeddings": True}),
}


def make_offset_exact(folder):
    """Round norms to 512ths: TensorRT-LLM stores Gemma's with 1 added, and float16 has steps of 1/1024 from 1 to 2.

    Finer bits of a weight near 0 are lost in that sum, in NVIDIA's converter as in ours.
    """
    tensors = load_file(folder / "model.safetensors")
    rounded = {name: (t.float() * 512).round().div(512).half() if "norm" in name else t for name, t in tensors.items()}
    save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(("architecture", "changes"), VARIANTS.values(), ids=VARIANTS.keys())
def test_fp16_mapped_back_gives_the_original_logits_exactly(tmp_path, architecture, changes):
    original, back = tmp_path / "hf", tmp_path / "back"
    save_model(original, architecture=architecture, initializer_range=0.1, **changes)
    if architecture.startswith("Gemma"):
        make_offset_exact(original)
    spec = convert_model(original, tmp_path / "out", "fp16")
    shutil.copytree(original, back)
    state = hf_state(tmp_path / "out", spec)
    head = state.pop("lm_head.weight") if spec.is_tied else state["lm_head.weight"]
    save_file(
        {name: tensor.contiguous() for name, tensor in state.items()},
        back / "model.safetensors",
        metadata={"format": "pt"},
    )

    ids = torch.randint(0, 320, (2, 80), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        found, expected = (read_back(folder, architecture)(ids).logits for folder in (back, original))

    assert state.keys() == load_file(original / "model.safetensors").keys()
    assert torch.equal(head, state["model.embed_tokens.weight"]) == spec.is_tied
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("architecture", "act"), [("MixtralForCausalLM", "swiglu"), ("GemmaForCausalLM", None)])
def test_config_json_has_what_the_family_adds(tmp_path, architecture, act):
    save_model(tmp_path / "hf", architecture=architecture)
    spec = convert_model(tmp_path / "hf", tmp_path / "out", "fp16")

    config = json.loads((tmp_path / "out/config.json").read_text())

    assert config["hidden_act"] == (act or spec.activation)
    assert config["architecture"] == architecture


def test_dense_layers_of_a_mixture_are_refused_before_anything_is_written(tmp_path):
    save_model(tmp_path / "hf", architecture="Qwen3MoeForCausalLM", mlp_only_layers=[0])

    with pytest.raises(PlanInfeasible, match="Layers 0 have an ordinary MLP; TensorRT-LLM"):
        convert_model(tmp_path / "hf", tmp_path / "out", "fp16")

    assert not (tmp_path / "out").exists()
