"""Parameters are counted as Hugging Face's own models have them, whatever a family adds to Llama's shape."""

import json

import pytest
import torch
import transformers

from tests.conftest import ARCHITECTURE_SETTINGS, CONFIGS
from toolkit import models, quant
from toolkit.plan import groups, kv_cache, memory
from toolkit.specs import Sharding

COMMON = {
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
}
BIASES = {"attention_bias": True, "mlp_bias": True}
LATENT = {
    "moe_intermediate_size": 64,
    "n_routed_experts": 4,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 32,
    "qk_rope_head_dim": 16,
    "v_head_dim": 24,
}
HYBRID = {
    "num_hidden_layers": 4,
    "head_dim": 32,
    "num_key_value_heads": 2,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "shared_expert_intermediate_size": 96,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 24,
}
VARIANTS = {
    "llama, biases": ("LlamaForCausalLM", BIASES),
    "llama, tied": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "mistral, own head_dim": ("MistralForCausalLM", {"head_dim": 48, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2ForCausalLM", {"num_key_value_heads": 2}),
    "qwen2-moe, every second layer": ("Qwen2MoeForCausalLM", {"decoder_sparse_step": 2}),
    "qwen3-moe, two dense layers": ("Qwen3MoeForCausalLM", {"mlp_only_layers": [0, 2], "attention_bias": True}),
    "deepseek, compressed queries": ("DeepseekV2ForCausalLM", {**LATENT, "q_lora_rank": 48}),
    "deepseek, whole queries": ("DeepseekV2ForCausalLM", {**LATENT, "q_lora_rank": None}),
    "qwen3-next, a hybrid": ("Qwen3NextForCausalLM", HYBRID),
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
    return models.shape_of(architecture).describe(json.loads(config.to_json_string(use_diff=False))), model


@pytest.mark.parametrize(("architecture", "changes"), VARIANTS.values(), ids=VARIANTS.keys())
def test_parameters_are_those_of_hugging_faces_model(architecture, changes):
    spec, model = tiny(architecture, **changes)

    assert memory.total_parameters(spec) == sum(parameter.numel() for parameter in model.parameters())


def test_keys_and_values_are_counted_with_the_heads_own_width():
    spec, _ = tiny("MistralForCausalLM", head_dim=48, num_key_value_heads=1)

    assert memory.kv_bytes_per_token(spec) == 2 * 3 * 1 * 48 * 2


#: What the published config.json of DeepSeek-V3 says of its shape.
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "hidden_size": 7168,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "vocab_size": 129280,
    "max_position_embeddings": 163840,
    "topk_method": "noaux_tc",
}


def test_deepseek_v3_has_its_671_thousand_million_parameters_and_caches_one_vector_a_layer():
    """671,026,419,200 without the layer for drafts: its model card says 671B, and 685B with it."""
    spec = models.shape_of("DeepseekV3ForCausalLM").describe(DEEPSEEK_V3)

    assert memory.total_parameters(spec) == 671_026_419_200
    assert memory.kv_bytes_per_token(spec) == 61 * (512 + 64) * 2
    assert memory.kv_bytes_per_token(spec, sharding=Sharding(tp=8)) == 70_272, "whole on every rank"
    assert [spec.is_moe_layer(layer) for layer in (0, 2, 3, 60)] == [False, False, True, True]


def test_a_rank_of_deepseek_v3_holds_an_eighth_of_what_widens_and_all_of_what_compresses():
    spec = models.shape_of("DeepseekV3ForCausalLM").describe(DEEPSEEK_V3)
    ranks = Sharding(tp=8, ep=8)
    experts = 58 * 256 * 3 * 7168 * 2048
    dense = (3 * 3 * 7168 * 18432) + 58 * 3 * 7168 * 2048
    wide = 61 * (1536 * 128 * 192 + 512 * 128 * 256 + 128 * 128 * 7168)
    whole = 61 * (7168 * 1536 + 7168 * 576 + 2 * 7168 + 1536 + 512) + 7168
    tables = 2 * 129280 * 7168

    assert memory.weights_bytes(spec, quant.get("fp16"), None, sharding=ranks) == (
        2 * ((experts + dense + wide + tables) // 8 + whole) + 4 * 58 * 256 * (7168 + 1)
    )


def test_a_hybrid_caches_in_its_full_layers_and_keeps_a_state_in_the_others():
    spec, _ = tiny("Qwen3NextForCausalLM", **HYBRID)
    cached = kv_cache.of_model(spec)
    # The convolution's inputs of four steps, and a float32 matrix [16, 24] for each of four heads.
    state = 2 * 4 * (2 * 2 * 16 + 4 * 24) + 4 * 4 * 16 * 24

    assert kv_cache.bytes_per_token(cached) == 1 * 2 * 2 * 32 * 2
    assert kv_cache.bytes_of_request(cached, 100) == 100 * 256 + 3 * state
    assert kv_cache.bytes_of_request(cached, 0) == 3 * state


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


def test_the_fullest_stage_is_counted_where_the_first_has_the_small_layers():
    """DeepSeek's three dense layers come first; two stages of 61 layers hold 28 and 30 mixtures."""
    model = models.shape_of("DeepseekV3ForCausalLM").describe(DEEPSEEK_V3)
    fp8 = quant.get("fp8")
    expert_bytes = 256 * 3 * 7168 * 2048

    whole = memory.weights_bytes(model, fp8, None)
    halved = memory.weights_bytes(model, fp8, None, sharding=Sharding(pp=2))

    assert 30 * expert_bytes < halved < whole
    assert halved > whole / 2


def test_the_stage_with_the_most_layers_that_look_back_without_end_is_counted():
    """Of 34 layers of Gemma 3 each sixth sees everything: two of the first seventeen, three of the others."""
    config = transformers.Gemma3TextConfig(**COMMON, num_hidden_layers=34, sliding_window=512)
    model = models.family_of("Gemma3ForCausalLM").describe({**config.to_dict(), "architectures": ["Gemma3ForCausalLM"]})

    cached = kv_cache.of_model(model, sharding=Sharding(pp=2))

    assert {group.window is None: group.layers for group in cached} == {True: 3, False: 14}
