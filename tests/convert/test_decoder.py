"""Our decoder computes what Hugging Face's own model computes."""

from pathlib import Path

import pytest
import torch
import transformers

from tests.conftest import ARCHITECTURE_SETTINGS, read_back, save_model
from toolkit import models
from toolkit.checkpoint.shards import Shards
from toolkit.checkpoint.source import SourceModel
from toolkit.forward.decoder import Decoder, KVCache
from toolkit.specs import ModelSource

LENGTH, CONTEXT = 80, 64  # of the prompt, and what dynamic and longrope call short


def rope(rope_type: str, **settings) -> dict:
    return {"rope_parameters": {"rope_type": rope_type, "rope_theta": 10000.0, **settings}}


LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
LONG = {
    "original_max_position_embeddings": CONTEXT,
    "short_factor": [1.0 + 0.1 * i for i in range(16)],
    "long_factor": [2.0 + 0.2 * i for i in range(16)],
}
WINDOW = {"use_sliding_window": True, "sliding_window": 16, "num_hidden_layers": 3}
VARIANTS = {
    "grouped-query": {},
    "multi-head": {"num_key_value_heads": 4},
    "multi-query": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "own head_dim": {"head_dim": 48},
    "llama3 rope": rope("llama3", **LLAMA3),
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    "dynamic rope, beyond the context": {**rope("dynamic", factor=2.0), "max_position_embeddings": CONTEXT},
    "dynamic rope, within the context": {**rope("dynamic", factor=2.0), "max_position_embeddings": 2 * LENGTH},
    "yarn": rope("yarn", **YARN),
    "yarn, no truncation, own ramp": rope("yarn", **YARN, truncate=False, beta_fast=8.0, beta_slow=2.0),
    "yarn with mscale": rope("yarn", **YARN, mscale=0.7, mscale_all_dim=1.3),
    "yarn with attention_factor": rope("yarn", **YARN, attention_factor=1.5),
    "longrope": rope("longrope", **LONG),
    "longrope with factors": rope("longrope", **LONG, factor=8.0, attention_factor=0.8),
    "mistral": {"architecture": "MistralForCausalLM", "sliding_window": None},
    "mistral, window": {"architecture": "MistralForCausalLM", "sliding_window": 16},
    "mixtral": {"architecture": "MixtralForCausalLM"},
    "mixtral, window": {"architecture": "MixtralForCausalLM", "sliding_window": 16},
    "qwen2": {"architecture": "Qwen2ForCausalLM"},
    "qwen2, tied, yarn": {"architecture": "Qwen2ForCausalLM", "tie_word_embeddings": True, **rope("yarn", **YARN)},
    "qwen2, window from layer 1 on": {"architecture": "Qwen2ForCausalLM", **WINDOW, "max_window_layers": 1},
    "qwen2, window switched off": {
        "architecture": "Qwen2ForCausalLM",
        "use_sliding_window": False,
        "sliding_window": 16,
    },
    "qwen3": {"architecture": "Qwen3ForCausalLM"},
    "qwen3, biases, own head_dim": {"architecture": "Qwen3ForCausalLM", "attention_bias": True, "head_dim": 48},
    "qwen3, window from layer 1 on": {"architecture": "Qwen3ForCausalLM", **WINDOW, "max_window_layers": 1},
    "qwen2-moe": {"architecture": "Qwen2MoeForCausalLM"},
    "qwen2-moe, normalised": {"architecture": "Qwen2MoeForCausalLM", "norm_topk_prob": True, "qkv_bias": False},
    "qwen2-moe, window": {"architecture": "Qwen2MoeForCausalLM", **WINDOW, "max_window_layers": 2},
    "qwen2-moe, every second layer": {
        "architecture": "Qwen2MoeForCausalLM",
        "decoder_sparse_step": 2,
        "num_hidden_layers": 3,
    },
    "qwen3-moe": {"architecture": "Qwen3MoeForCausalLM"},
    "qwen3-moe, not normalised, a dense layer": {
        "architecture": "Qwen3MoeForCausalLM",
        "norm_topk_prob": False,
        "mlp_only_layers": [0],
    },
    "qwen3-moe, window": {"architecture": "Qwen3MoeForCausalLM", **WINDOW},
    "gemma": {"architecture": "GemmaForCausalLM"},
    "gemma, multi-query, own head_dim": {"architecture": "GemmaForCausalLM", "num_key_value_heads": 1, "head_dim": 48},
    "gemma2": {"architecture": "Gemma2ForCausalLM"},
    "gemma2, tight softcaps": {
        "architecture": "Gemma2ForCausalLM",
        "attn_logit_softcapping": 0.5,
        "final_logit_softcapping": 0.5,
    },
    "gemma2, no softcaps": {
        "architecture": "Gemma2ForCausalLM",
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    },
    "gemma3": {"architecture": "Gemma3ForCausalLM"},
    "gemma3, scaled global rope": {
        "architecture": "Gemma3ForCausalLM",
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
    },
    "phi3": {"architecture": "Phi3ForCausalLM"},
    "phi3, window, multi-head": {"architecture": "Phi3ForCausalLM", "sliding_window": 16, "num_key_value_heads": 4},
    "phi3, long": {
        "architecture": "Phi3ForCausalLM",
        **rope("longrope", **LONG),
        "original_max_position_embeddings": CONTEXT,
    },
    "phi4-mini: partial, long, tied": {
        "architecture": "Phi3ForCausalLM",
        "partial_rotary_factor": 0.75,
        **rope(
            "longrope",
            short_factor=LONG["short_factor"][:12],
            long_factor=LONG["long_factor"][:12],
            partial_rotary_factor=0.75,
        ),
        "original_max_position_embeddings": CONTEXT,
        "tie_word_embeddings": True,
    },
}


def our_logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    source = ModelSource(name="tiny", path=str(folder), revision="local")
    spec = models.read(source)
    source = SourceModel(Shards(folder), models.family_of(spec.architecture).tensors, spec)
    decoder = Decoder(spec, max_length=ids.shape[1])
    hidden = source.embed(ids)
    for index in range(spec.num_layers):
        hidden = decoder.layer(source.layer(index), hidden)
    return decoder.logits(hidden, source.final_norm(), source.head().float())


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_equal_hugging_faces(tmp_path, changes):
    """Weights are large, so that heads look at single tokens: near-uniform attention would hide most mistakes."""
    original = save_model(tmp_path, **{"initializer_range": 0.1, **changes})
    ids = torch.randint(0, 320, (2, LENGTH), generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        theirs = original(ids).logits
        torch.testing.assert_close(our_logits(tmp_path, ids), theirs, atol=1e-4 * theirs.abs().max().item(), rtol=1e-4)


def test_the_text_model_of_a_multimodal_gemma_3_speaks_as_the_whole_does(tmp_path):
    text = {
        "vocab_size": 320,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.1,
        **ARCHITECTURE_SETTINGS["Gemma3ForCausalLM"],
    }
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    torch.manual_seed(1)
    architecture = "Gemma3ForConditionalGeneration"
    config = transformers.Gemma3Config(
        text_config=text,
        vision_config={"model_type": "siglip_vision_model", **vision},
        image_token_index=319,
        boi_token_index=317,
        eoi_token_index=318,
        mm_tokens_per_image=4,
    )
    getattr(transformers, architecture)(config).half().save_pretrained(tmp_path)
    original = read_back(tmp_path, architecture)
    ids = torch.randint(0, 300, (2, LENGTH), generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        theirs = original(ids).logits
        torch.testing.assert_close(our_logits(tmp_path, ids), theirs, atol=1e-4 * theirs.abs().max().item(), rtol=1e-4)


def test_a_cache_gives_what_the_whole_prompt_gives(llama):
    folder, _ = llama
    spec = models.read(ModelSource(name="tiny", path=str(folder), revision="local"))
    layer = SourceModel(Shards(folder), models.family_of(spec.architecture).tensors, spec).layer(0)
    hidden = torch.randn(2, 12, spec.hidden_size, generator=torch.Generator().manual_seed(0))
    decoder, cache = Decoder(spec, max_length=12), KVCache()

    whole = decoder.layer(layer, hidden)
    pieces = [
        decoder.layer(layer, hidden[:, start:end], cache=cache, start=start) for start, end in ((0, 5), (5, 6), (6, 12))
    ]

    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-5)
