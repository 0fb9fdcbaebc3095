"""Read a llama-shaped GGUF file as Hugging Face weights, config and tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from toolkit.files import write_json, write_text, written_whole

#: GGUF tensor → Hugging Face tensor; {i} is the layer.
NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "model.layers.{i}.input_layernorm",
    "attn_q": "model.layers.{i}.self_attn.q_proj",
    "attn_k": "model.layers.{i}.self_attn.k_proj",
    "attn_v": "model.layers.{i}.self_attn.v_proj",
    "attn_output": "model.layers.{i}.self_attn.o_proj",
    "ffn_norm": "model.layers.{i}.post_attention_layernorm",
    "ffn_gate": "model.layers.{i}.mlp.gate_proj",
    "ffn_up": "model.layers.{i}.mlp.up_proj",
    "ffn_down": "model.layers.{i}.mlp.down_proj",
}
#: tokenizer.ggml.pre values whose pre-tokenizer takes every digit on its own before the byte-level split.
DIGIT_SPLITTERS = {"smollm", "starcoder", "refact", "command-r"}
CONTROL_TOKEN = 3  # tokenizer.ggml.token_type


def open_file(path: Path) -> Any:
    """Return gguf's reader of a file."""
    import gguf

    return gguf.GGUFReader(str(path))


def value(reader: Any, key: str, default: Any = None) -> Any:
    """Return a metadata value, or the default."""
    found = reader.get_field(key)
    return default if found is None else found.contents()


def config(reader: Any) -> dict[str, Any]:
    """Return config.json of a `llama` GGUF."""
    heads = value(reader, "llama.attention.head_count")
    hidden = value(reader, "llama.embedding_length")
    names = {tensor.name for tensor in reader.tensors}
    eos = value(reader, "tokenizer.ggml.eos_token_id")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": value(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": eos,
        "pad_token_id": value(reader, "tokenizer.ggml.padding_token_id", eos),
        "head_dim": value(reader, "llama.rope.dimension_count", hidden // heads),
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": value(reader, "llama.feed_forward_length"),
        "max_position_embeddings": value(reader, "llama.context_length"),
        "num_attention_heads": heads,
        "num_hidden_layers": value(reader, "llama.block_count"),
        "num_key_value_heads": value(reader, "llama.attention.head_count_kv", heads),
        "rms_norm_eps": round(float(value(reader, "llama.attention.layer_norm_rms_epsilon")), 12),
        "rope_theta": float(value(reader, "llama.rope.freq_base", 10000.0)),
        "tie_word_embeddings": "output.weight" not in names,
        "torch_dtype": "float16",
        "vocab_size": value(reader, "llama.vocab_size", len(value(reader, "tokenizer.ggml.tokens"))),
    }


def save_weights(reader: Any, path: Path) -> None:
    """Write every tensor, dequantized to float16, as one safetensors file with Hugging Face names."""
    import numpy as np
    from gguf.quants import dequantize
    from safetensors.numpy import save_file

    heads = value(reader, "llama.attention.head_count")
    rotary = {"attn_q": heads, "attn_k": value(reader, "llama.attention.head_count_kv", heads)}
    tensors = {}
    for tensor in reader.tensors:
        kind = tensor.name.removesuffix(".weight").split(".")[-1]
        plain = dequantize(tensor.data, tensor.tensor_type)
        if kind in rotary:
            plain = _unpermuted(plain, rotary[kind])
        tensors[_hf_name(tensor.name)] = np.ascontiguousarray(plain, dtype=np.float16)
    with written_whole(path) as temporary:
        save_file(tensors, str(temporary), metadata={"format": "pt"})


def _hf_name(name: str) -> str:
    parts = name.removesuffix(".weight").split(".")
    index = parts[1] if parts[0] == "blk" else ""
    return NAMES[parts[-1]].format(i=index) + ".weight"


def _unpermuted(weight: Any, heads: int) -> Any:
    """Undo GGUF's interleaving of the two rotary halves: [heads, head_dim/2, 2] back to [heads, 2, head_dim/2]."""
    rows, columns = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def save_tokenizer(reader: Any, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja of a byte-level BPE (`gpt2`) tokenizer."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = value(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ", 1)) for merge in value(reader, "tokenizer.ggml.merges")]
    made = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if value(reader, "tokenizer.ggml.pre") in DIGIT_SPLITTERS:
        made.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    else:
        made.pre_tokenizer = byte_level
    made.decoder = decoders.ByteLevel()
    kinds = value(reader, "tokenizer.ggml.token_type")
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    made.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    with written_whole(folder / "tokenizer.json") as temporary:
        made.save(str(temporary))
    special = {
        f"{role}_token": tokens[value(reader, f"tokenizer.ggml.{key}_token_id")]
        for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
        if value(reader, f"tokenizer.ggml.{key}_token_id") is not None
    }
    context = value(reader, "llama.context_length")
    settings = {**special, "model_max_length": context, "tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(folder / "tokenizer_config.json", {**settings, "clean_up_tokenization_spaces": False})
    write_text(folder / "chat_template.jinja", value(reader, "tokenizer.chat_template"))
