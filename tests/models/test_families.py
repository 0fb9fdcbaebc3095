"""Families read the config.json files that are on the hub, and count what transformers counts."""

import dataclasses
import json

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from tests.models.hub_configs import FACTORS, HUB
from toolkit import models, plan, quant, rope
from toolkit.errors import PlanInfeasible
from toolkit.plan import memory
from toolkit.specs import ModelSource


def spec_of(config):
    return models.family_of(config["architectures"][0]).describe(config)


def shape_of(config):
    """Return the spec without token ids, which transformers fills in where a config.json says nothing."""
    return dataclasses.replace(spec_of(config), bos_token_id=None, eos_token_ids=(), pad_token_id=None)


def transformers_config(config):
    found = json.loads(json.dumps(config))
    return transformers.AutoConfig.for_model(found.pop("model_type"), **found)


@pytest.mark.parametrize("name", HUB)
def test_parameters_are_those_of_the_model_card_and_of_transformers(name):
    card, config = HUB[name]
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers_config(config))
    theirs = sum(parameter.numel() for parameter in model.parameters())

    assert memory.total_parameters(spec_of(config)) == theirs == card


@pytest.mark.parametrize("name", HUB)
def test_windows_are_those_that_transformers_reads_from_the_same_file(name):
    config = HUB[name][1]
    spec, theirs = spec_of(config), transformers_config(config)
    types = getattr(theirs, "layer_types", None) or ["sliding_attention"] * theirs.num_hidden_layers

    ours = [spec.window_of(layer) for layer in range(spec.num_layers)]

    window = getattr(theirs, "sliding_window", None)
    assert ours == [window if kind == "sliding_attention" else None for kind in types]


@pytest.mark.parametrize("length", [1024, 60_000])
@pytest.mark.parametrize("name", [name for name in HUB if spec_of(HUB[name][1]).rope_scaling])
def test_rope_is_what_transformers_computes_from_the_same_file(name, length):
    config = HUB[name][1]
    spec, theirs = spec_of(config), transformers_config(config)
    function = ROPE_INIT_FUNCTIONS[theirs.rope_parameters["rope_type"]]

    expected, factor = function(theirs, torch.device("cpu"), seq_len=length)
    ours, our_factor = rope.rotary_of(spec, length=length)

    torch.testing.assert_close(torch.tensor(ours), expected, rtol=2e-6, atol=0)
    assert our_factor == pytest.approx(factor, rel=1e-12)


def test_rope_scaling_that_was_added_to_what_transformers_5_wrote_is_followed_as_there():
    written = transformers_config(HUB["meta-llama/Llama-3.1-8B"][1]).to_dict()
    added = {"rope_type": "linear", "factor": 4.0, "rope_theta": 5e5}

    spec = spec_of({**written, "rope_scaling": added})

    theirs = transformers_config({**written, "rope_scaling": added}).rope_parameters
    assert {**spec.rope_scaling, "rope_theta": spec.rope_theta} == theirs == added


def test_gemma_3_reads_its_two_ropes_in_the_old_spelling_and_in_the_new():
    """Gemma 3 1B as published, and as transformers 5 writes it: rope_parameters by the type of layer."""
    old = HUB["google/gemma-3-1b-it"][1] | {"rope_scaling": {"rope_type": "linear", "factor": 8.0}}
    new = json.loads(transformers_config(old).to_json_string(use_diff=False)) | {"architectures": old["architectures"]}

    assert "rope_theta" not in new
    assert set(new["rope_parameters"]) == {"full_attention", "sliding_attention"}
    assert shape_of(new) == shape_of(old)
    assert spec_of(old).rope_scaling == {"rope_type": "linear", "factor": 8.0}
    assert (spec_of(old).rope_theta, spec_of(old).rope_local_theta) == (1e6, 1e4)
    assert spec_of(old).full_attention_layers == (5, 11, 17, 23)


@pytest.mark.parametrize("name", HUB)
def test_what_transformers_5_writes_is_read_as_what_the_hub_has(name):
    old = HUB[name][1]
    new = json.loads(transformers_config(old).to_json_string(use_diff=False)) | {"architectures": old["architectures"]}

    assert shape_of(new) == shape_of(old)


def test_gemmas_first_release_says_gelu_and_means_its_tanh_form():
    assert spec_of(HUB["google/gemma-2b"][1]).activation == "gelu_pytorch_tanh"


def test_embeddings_are_scaled_by_the_root_of_hidden_in_the_dtype_of_the_model():
    """3072 ** 0.5 is 55.4256; bfloat16 has steps of 0.25 there (huggingface/transformers#29402)."""
    gemma_7b = HUB["google/gemma-2b"][1] | {"hidden_size": 3072, "num_attention_heads": 16, "num_key_value_heads": 16}

    for dtype in ("bfloat16", "float16", "float32"):
        expected = torch.tensor(3072**0.5).to(getattr(torch, dtype)).item()
        assert spec_of(gemma_7b | {"torch_dtype": dtype}).embedding_scale == pytest.approx(expected, rel=1e-7)
    assert spec_of(gemma_7b).embedding_scale == 55.5


def test_gemma_3_4b_is_its_text_model_alone():
    """The hub's text_config says only what differs from transformers' defaults."""
    config = {
        "architectures": ["Gemma3ForConditionalGeneration"],
        "model_type": "gemma3",
        "eos_token_id": [1, 106],
        "text_config": {
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "model_type": "gemma3_text",
            "num_hidden_layers": 34,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "sliding_window": 1024,
        },
        "torch_dtype": "bfloat16",
        "vision_config": {"hidden_size": 1152, "model_type": "siglip_vision_model"},
    }
    text = transformers.Gemma3TextConfig(**config["text_config"])
    with torch.device("meta"):
        theirs = sum(parameter.numel() for parameter in transformers.Gemma3ForCausalLM(text).parameters())

    spec = spec_of(config)

    assert memory.total_parameters(spec) == theirs
    assert spec.eos_token_ids == (1, 106)
    assert spec.dtype == "bfloat16"
    assert models.family_of(spec.architecture).config_fields(spec)["architecture"] == "Gemma3ForCausalLM"
    asked = plan.AskedCheckpoint(layout="hf")
    with pytest.raises(PlanInfeasible, match="its language model alone: --format hf would lack the vision tower"):
        plan.conversion(spec, quant.get("fp16"), asked=asked)


LLAMA = HUB["meta-llama/Llama-3.1-8B"][1]
GEMMA3 = HUB["google/gemma-3-1b-it"][1]
WRONG = {
    "unknown rope": (LLAMA | {"rope_scaling": {"type": "mrope"}}, "trtk does not know rope_type 'mrope'; it knows"),
    "rope without factor": (
        LLAMA | {"rope_scaling": {"type": "linear"}},
        "config.json's rope scaling of type 'linear' has no 'factor'.",
    ),
    "rope without a list": (
        HUB["microsoft/Phi-4-mini-instruct"][1] | {"rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48}},
        "config.json's rope scaling of type 'longrope' has no 'long_factor'.",
    ),
    "rope of another width": (
        HUB["microsoft/Phi-4-mini-instruct"][1] | {"partial_rotary_factor": 1.0},
        "config.json's rope scaling has 48 numbers in 'short_factor', but 128 rotary dimensions need 64.",
    ),
    "rope is no object": (LLAMA | {"rope_scaling": 8.0}, "config.json's rope settings are 8.0, not an object."),
    "scaled sliding layers": (
        GEMMA3 | {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
        "trtk knows no rope scaling of sliding layers; config.json asks for 'linear'.",
    ),
    "no vocabulary": (LLAMA | {"vocab_size": None}, "config.json has no 'vocab_size'."),
    "no layers": (LLAMA | {"num_hidden_layers": 0}, "config.json's 'num_hidden_layers' is 0, not a number of things."),
    "too many layers": (LLAMA | {"num_hidden_layers": 10**9}, "config.json has 1000000000 layers; no model has over"),
    "no KV heads": (
        LLAMA | {"num_key_value_heads": 0},
        "config.json's 'num_key_value_heads' is 0, not a number of things",
    ),
    "words": (LLAMA | {"hidden_size": "4096"}, "config.json's 'hidden_size' is '4096', not a number of things."),
    "KV heads": (
        LLAMA | {"num_key_value_heads": 5},
        "config.json has 32 attention heads, which 5 KV heads do not divide.",
    ),
    "heads": (
        LLAMA | {"num_attention_heads": 24},
        "config.json has a hidden_size of 4096, which 24 attention heads do not divide.",
    ),
    "no expert size": (
        HUB["mistralai/Mixtral-8x7B-v0.1"][1] | {"num_local_experts": None},
        "config.json has no 'num_local_experts'.",
    ),
    "too many experts": (
        HUB["Qwen/Qwen3-30B-A3B"][1] | {"num_experts_per_tok": 129},
        "config.json picks 129 of 128 experts.",
    ),
    "unknown layer type": (
        GEMMA3 | {"layer_types": ["chunked_attention"] * 26},
        "config.json's layer_types has the types chunked_attention; trtk knows",
    ),
    "too few layer types": (
        GEMMA3 | {"layer_types": ["full_attention"] * 25},
        "config.json's layer_types has 25 types for 26 layers; trtk knows",
    ),
    "an encoder": (GEMMA3 | {"use_bidirectional_attention": True}, "config.json asks for use_bidirectional_attention"),
    "another architecture": (
        LLAMA | {"architectures": ["FalconForCausalLM"]},
        "trtk does not convert FalconForCausalLM yet; it converts Gemma2ForCausalLM, Gemma3ForCausalLM, ",
    ),
}


@pytest.mark.parametrize(("config", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_config_that_cannot_be_is_refused_with_what_is_wrong(tmp_path, config, message):
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")

    with pytest.raises(PlanInfeasible) as caught:
        models.read(ModelSource(name="wrong", path=str(tmp_path), revision="local"))

    assert str(caught.value).startswith(message)


def fields_of(config):
    spec = spec_of(config)
    return models.family_of(spec.architecture).config_fields(spec)


def test_qwen_says_its_type_which_switches_norms_and_biases():
    assert fields_of(HUB["Qwen/Qwen2.5-7B-Instruct"][1])["qwen_type"] == "qwen2"
    assert fields_of(HUB["Qwen/Qwen3-8B"][1])["qwen_type"] == "qwen3"
    assert fields_of(HUB["Qwen/Qwen1.5-MoE-A2.7B"][1]) == {
        "qwen_type": "qwen2_moe",
        "seq_length": 8192,
        "use_logn_attn": False,
        "hidden_act": "swiglu",
        "moe": {"num_experts": 60, "top_k": 4, "normalization_mode": 0},
        "moe_intermediate_size": 1408,
        "moe_shared_expert_intermediate_size": 5632,
    }
    assert fields_of(HUB["Qwen/Qwen3-30B-A3B"][1]) == {
        "qwen_type": "qwen3_moe",
        "seq_length": 8192,
        "use_logn_attn": False,
        "hidden_act": "swiglu",
        "moe": {"num_experts": 128, "top_k": 8, "normalization_mode": 1},
        "moe_intermediate_size": 768,
        "moe_shared_expert_intermediate_size": 0,
    }


def test_gemma_says_what_switches_each_of_its_generations_on():
    assert fields_of(HUB["google/gemma-2-9b"][1]) == {
        "share_embedding_table": True,
        "inter_layernorms": True,
        "query_pre_attn_scalar": 256.0,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
    }
    assert fields_of(GEMMA3) == {
        "share_embedding_table": True,
        "inter_layernorms": True,
        "qk_layernorm": True,
        "query_pre_attn_scalar": 256.0,
        "final_logit_softcapping": None,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
        "rope_local_base_freq": 10000.0,
    }
    assert fields_of(HUB["google/gemma-2-9b"][1] | {"query_pre_attn_scalar": 144})["query_pre_attn_scalar"] == 144.0


def test_phi_has_long_rope_fields_where_its_context_is_long():
    assert fields_of(HUB["microsoft/Phi-3-mini-4k-instruct"][1]) == {
        "hidden_act": "swiglu",
        "rotary_pct": 1.0,
        "tie_word_embeddings": False,
    }
    assert fields_of(HUB["microsoft/Phi-4-mini-instruct"][1]) == {
        "hidden_act": "swiglu",
        "rotary_pct": 0.75,
        "tie_word_embeddings": True,
        "position_embedding_type": "long_rope",
        "rotary_scaling": None,
        "original_max_position_embeddings": 4096,
        "longrope_scaling_short_factors": FACTORS["short_factor"],
        "longrope_scaling_long_factors": FACTORS["long_factor"],
    }


NOT_IN_TENSORRT_LLM = {
    "dense layers": (
        HUB["Qwen/Qwen3-30B-A3B"][1] | {"mlp_only_layers": [0, 47]},
        "Layers 0, 47 have an ordinary MLP; TensorRT-LLM's Qwen3MoeForCausalLM takes a mixture",
    ),
    "a head of its own": (
        HUB["google/gemma-2b"][1] | {"tie_word_embeddings": False},
        "TensorRT-LLM's GemmaForCausalLM takes the embedding as its head",
    ),
    "no step between full layers": (
        GEMMA3 | {"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 24},
        "Layers 0, 1 attend to everything; TensorRT-LLM's Gemma3ForCausalLM takes every n-th layer.",
    ),
}


@pytest.mark.parametrize(("config", "message"), NOT_IN_TENSORRT_LLM.values(), ids=NOT_IN_TENSORRT_LLM.keys())
def test_what_tensorrt_llm_has_no_field_for_is_refused(config, message):
    with pytest.raises(PlanInfeasible) as caught:
        fields_of(config)

    assert str(caught.value).startswith(message)
    assert caught.value.hint == "Try --format hf."
