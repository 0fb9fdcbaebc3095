"""Parameters are counted as Hugging Face's own models have them, whatever a family adds to Llama's shape."""

import json

import pytest
import torch
import transformers

from tests.conftest import ARCHITECTURE_SETTINGS, CONFIGS
from toolkit import models, quant
from toolkit.plan import groups, memory

COMMON = {
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
BIASES = {"attention_bias": True, "mlp_bias": True}
VARIANTS = {
    "llama, biases": ("LlamaForCausalLM", BIASES),
    "llama, tied": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "mistral, own head_dim": ("MistralForCausalLM", {"head_dim": 48, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2ForCausalLM", {"num_key_value_heads": 2}),
    "qwen2-moe, every second layer": ("Qwen2MoeForCausalLM", {"decoder_sparse_step": 2}),
    "qwen3-moe, two dense layers": ("Qwen3MoeForCausalLM", {"mlp_only_layers": [0, 2], "attention_bias": True}),
    "gemma3, biases": ("Gemma3ForCausalLM", {"attention_bias": True}),
    **{architecture: (architecture, {}) for architecture in ARCHITECTURE_SETTINGS},
}


def tiny(architecture, **changes):
    """Return (ModelSpec, Hugging Face's model without memory)."""
    settings = {**COMMON, "num_hidden_layers": 3, **ARCHITECTURE_SETTINGS.get(architecture, {}), **changes}
    name = CONFIGS.get(architecture, architecture.replace("ForCausalLM", "Config"))
    config = getattr(transformers, name)(architectures=[architecture], **settings)
    with torch.device("meta"):
        model = getattr(transformers, architecture)(config)
    return models.family_of(architecture).describe(json.loads(config.to_json_string(use_diff=False))), model


@pytest.mark.parametrize(("architecture", "changes"), VARIANTS.values(), ids=VARIANTS.keys())
def test_parameters_are_those_of_hugging_faces_model(architecture, changes):
    spec, model = tiny(architecture, **changes)

    assert memory.total_parameters(spec) == sum(parameter.numel() for parameter in model.parameters())


def test_keys_and_values_are_counted_with_the_heads_own_width():
    spec, _ = tiny("MistralForCausalLM", head_dim=48, num_key_value_heads=1)

    assert memory.kv_bytes_per_token(spec) == 2 * 3 * 1 * 48 * 2


def test_groups_must_fit_into_every_kind_of_linear_of_a_mixture():
    spec, _ = tiny("Qwen2MoeForCausalLM", decoder_sparse_step=2)

    assert groups.inputs_of_linears(spec) == {
        "attention.qkv": 128,
        "attention.dense": 128,
        "mlp.fc": 128,
        "mlp.gate": 128,
        "mlp.proj": 256,
        "mlp.experts.*.fc": 128,
        "mlp.experts.*.gate": 128,
        "mlp.experts.*.proj": 64,
        "mlp.shared_expert.fc": 128,
        "mlp.shared_expert.gate": 128,
        "mlp.shared_expert.proj": 192,
    }


def test_routers_stay_in_32_bits_whatever_the_recipe():
    spec, _ = tiny("MixtralForCausalLM")
    experts = 3 * 4 * 3 * 128 * 256
    attention = 3 * (2 * 128 * 128 + 2 * 128 * 128)
    norms = 7 * 128
    # Of qkv and dense one for weights and one for inputs; of fc and proj one for each expert and one for inputs.
    scales = 3 * (2 * 2 + 2 * (4 + 1))

    assert memory.weights_bytes(spec, quant.get("fp8"), None) == (
        experts + attention + 2 * (2 * 320 * 128 + norms) + 4 * 3 * 4 * 128 + 4 * scales
    )
