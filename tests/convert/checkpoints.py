"""Checkpoints of tiny models, and the way back: a checkpoint as Hugging Face's state dict."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from toolkit import convert, models, plan, quant
from toolkit.specs import CalibrationSpec, ModelSource, ModelSpec

CALIBRATION = CalibrationSpec(source="self", samples=4, length=32)


def convert_model(folder: Path, target: Path, recipe: str, **options) -> ModelSpec:
    """Quantize FOLDER into TARGET and return the model's spec."""
    source = ModelSource(name="tiny", path=str(folder), revision="local")
    spec = models.read(source)
    asked = plan.AskedCheckpoint(**{"kv_cache": "none", **options})
    convert.run(plan.conversion(spec, quant.get(recipe), asked=asked, calibration=CALIBRATION), source, target)
    return spec


def int4_values(weight: torch.Tensor) -> torch.Tensor:
    """Unpack [N/2, K] bytes by the format's own words: low nibble is row 2i, high nibble row 2i+1, two's complement."""
    rows = []
    for packed in weight.to(torch.int16):
        for nibble in (packed & 0xF, (packed >> 4) & 0xF):
            rows.append(torch.where(nibble > 7, nibble - 16, nibble))
    return torch.stack(rows).float()


def effective(tensors: dict[str, torch.Tensor], module: str) -> torch.Tensor:
    """Return the float32 weight that a module's tensors stand for: what multiplies the unscaled activation."""
    weight = tensors[f"{module}.weight"]
    scale = tensors.get(f"{module}.weights_scaling_factor")
    if weight.dtype == torch.int8 and scale is not None:
        values = int4_values(weight)
        grouped = values.view(values.shape[0], scale.shape[1], -1) * scale.unsqueeze(-1)
        return grouped.view_as(values) * tensors[f"{module}.prequant_scaling_factor"].float()
    if scale is not None:
        return weight.float() * scale
    return weight.float()


def hf_state(folder: Path, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Return Hugging Face's state dict of a checkpoint, split and renamed by the format's rules, typed out here."""
    tensors = load_file(folder / "rank0.safetensors")
    state = {
        "model.embed_tokens.weight": tensors["transformer.vocab_embedding.weight"].float(),
        "model.norm.weight": tensors["transformer.ln_f.weight"].float(),
        "lm_head.weight": tensors["lm_head.weight"].float(),
    }
    queries, keys = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    for i in range(spec.num_layers):
        ours, theirs = f"transformer.layers.{i}.", f"model.layers.{i}."
        qkv = effective(tensors, ours + "attention.qkv")
        for name, part in zip("qkv", qkv.split([queries, keys, keys]), strict=True):
            state[f"{theirs}self_attn.{name}_proj.weight"] = part
        if f"{ours}attention.qkv.bias" in tensors:
            parts = tensors[f"{ours}attention.qkv.bias"].float().split([queries, keys, keys])
            for name, part in zip("qkv", parts, strict=True):
                state[f"{theirs}self_attn.{name}_proj.bias"] = part
        for ours_name, theirs_name in (
            ("attention.dense", "self_attn.o_proj"),
            ("mlp.fc", "mlp.gate_proj"),
            ("mlp.gate", "mlp.up_proj"),
            ("mlp.proj", "mlp.down_proj"),
        ):
            state[f"{theirs}{theirs_name}.weight"] = effective(tensors, ours + ours_name)
            if f"{ours}{ours_name}.bias" in tensors:
                state[f"{theirs}{theirs_name}.bias"] = tensors[f"{ours}{ours_name}.bias"].float()
        state[f"{theirs}input_layernorm.weight"] = tensors[f"{ours}input_layernorm.weight"].float()
        state[f"{theirs}post_attention_layernorm.weight"] = tensors[f"{ours}post_layernorm.weight"].float()
    return state
