"""Shapes of published models, as their config.json has them."""

import dataclasses

from toolkit.specs import ModelSpec

LLAMA_8B = ModelSpec(
    family="llama",
    architecture="LlamaForCausalLM",
    vocab_size=128_256,
    hidden_size=4096,
    num_layers=32,
    num_heads=32,
    num_kv_heads=8,
    head_dim=128,
    intermediate_size=14_336,
    activation="silu",
    norm_eps=1e-5,
    rope_theta=500_000.0,
    max_position_embeddings=131_072,
)
LLAMA2_7B = dataclasses.replace(
    LLAMA_8B, vocab_size=32_000, num_kv_heads=32, intermediate_size=11_008, max_position_embeddings=4096
)
LLAMA_70B = dataclasses.replace(LLAMA_8B, hidden_size=8192, num_layers=80, num_heads=64, intermediate_size=28_672)
MISTRAL_7B = dataclasses.replace(
    LLAMA_8B, family="mistral", architecture="MistralForCausalLM", vocab_size=32_000, sliding_window=4096
)
QWEN_05B = dataclasses.replace(
    LLAMA_8B,
    family="qwen2",
    architecture="Qwen2ForCausalLM",
    vocab_size=151_936,
    hidden_size=896,
    num_layers=24,
    num_heads=14,
    num_kv_heads=2,
    head_dim=64,
    intermediate_size=4864,
    has_qkv_bias=True,
    is_tied=True,
    max_position_embeddings=32_768,
)
DEMO = dataclasses.replace(
    LLAMA_8B,
    vocab_size=49_152,
    hidden_size=576,
    num_layers=30,
    num_heads=9,
    num_kv_heads=3,
    head_dim=64,
    intermediate_size=1536,
    is_tied=True,
    max_position_embeddings=8192,
)
