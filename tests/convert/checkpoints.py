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


#: TensorRT-LLM's norms below the layer → Hugging Face's; a family has some of them.
NORMS = {
    "input_layernorm": "input_layernorm",
    "post_layernorm": "post_attention_layernorm",
    "pre_feedforward_layernorm": "pre_feedforward_layernorm",
    "post_feedforward_layernorm": "post_feedforward_layernorm",
    "attention.q_layernorm": "self_attn.q_norm",
    "attention.k_layernorm": "self_attn.k_norm",
}
#: Names of the activated branch, the other one and the way back, of expert E, and of the router.
MIXTRAL = ("block_sparse_moe.experts.E.w1", "block_sparse_moe.experts.E.w3", "block_sparse_moe.experts.E.w2")
QWEN = ("mlp.experts.E.gate_proj", "mlp.experts.E.up_proj", "mlp.experts.E.down_proj")


def hf_state(folder: Path, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Return a checkpoint under Hugging Face's names, split and renamed by the format's rules, typed out here.

    Gemma's norms are stored with 1 added, and its head is its embedding.
    """
    tensors = load_file(folder / "rank0.safetensors")
    offset = 1.0 if spec.architecture.startswith("Gemma") else 0.0
    state = {
        "model.embed_tokens.weight": tensors["transformer.vocab_embedding.weight"].float(),
        "model.norm.weight": tensors["transformer.ln_f.weight"].float() - offset,
        "lm_head.weight": tensors["lm_head.weight"].float(),
    }
    for i in range(spec.num_layers):
        ours, theirs = f"transformer.layers.{i}.", f"model.layers.{i}."
        found = _attention(tensors, ours, spec) | _mlp(tensors, ours, spec)
        for ours_name, theirs_name in NORMS.items():
            if f"{ours}{ours_name}.weight" in tensors:
                found[f"{theirs_name}.weight"] = tensors[f"{ours}{ours_name}.weight"].float() - offset
        state |= {f"{theirs}{name}": tensor for name, tensor in found.items()}
    return state


def _attention(tensors: dict[str, torch.Tensor], layer: str, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Undo the fusion of q, k and v, which Phi-3 has in Hugging Face's model too."""
    state = _linear(tensors, f"{layer}attention.dense", "self_attn.o_proj")
    whole = _linear(tensors, f"{layer}attention.qkv", "self_attn.qkv_proj")
    if spec.architecture == "Phi3ForCausalLM":
        return state | whole
    queries, keys = spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    for name, tensor in whole.items():
        for part, rows in zip("qkv", tensor.split([queries, keys, keys]), strict=True):
            state[name.replace("qkv_proj", f"{part}_proj")] = rows
    return state


def _mlp(tensors: dict[str, torch.Tensor], layer: str, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """`fc` is the activated branch (HF's gate_proj) and `gate` the other; a module with both is [up ; gate]."""
    if f"{layer}mlp.router.weight" in tensors:
        return _mixture(tensors, layer, spec)
    if spec.architecture == "Phi3ForCausalLM":
        up, gate = effective(tensors, f"{layer}mlp.fc").chunk(2)
        down = effective(tensors, f"{layer}mlp.proj")
        return {"mlp.gate_up_proj.weight": torch.cat((gate, up)), "mlp.down_proj.weight": down}
    return {
        **_linear(tensors, f"{layer}mlp.fc", "mlp.gate_proj"),
        **_linear(tensors, f"{layer}mlp.gate", "mlp.up_proj"),
        **_linear(tensors, f"{layer}mlp.proj", "mlp.down_proj"),
    }


def _mixture(tensors: dict[str, torch.Tensor], layer: str, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Undo the stacking of experts [E, N, K], 16 bits only."""
    is_mixtral = spec.architecture == "MixtralForCausalLM"
    router = tensors[f"{layer}mlp.router.weight"]
    assert router.dtype == torch.float32
    state = {"block_sparse_moe.gate.weight" if is_mixtral else "mlp.gate.weight": router}
    for expert, (fused, proj) in enumerate(
        zip(tensors[f"{layer}mlp.fc.weight"].float(), tensors[f"{layer}mlp.proj.weight"].float(), strict=True)
    ):
        up, gate = fused.chunk(2)
        for name, weight in zip(MIXTRAL if is_mixtral else QWEN, (gate, up, proj), strict=True):
            state[f"{name.replace('E', str(expert))}.weight"] = weight
    if f"{layer}mlp.shared_expert.fc.weight" in tensors:
        up, gate = effective(tensors, f"{layer}mlp.shared_expert.fc").chunk(2)
        state["mlp.shared_expert.gate_proj.weight"], state["mlp.shared_expert.up_proj.weight"] = gate, up
        state["mlp.shared_expert.down_proj.weight"] = effective(tensors, f"{layer}mlp.shared_expert.proj")
        state["mlp.shared_expert_gate.weight"] = tensors[f"{layer}mlp.shared_expert_gate.weight"].float()
    return state


def _linear(tensors: dict[str, torch.Tensor], module: str, name: str) -> dict[str, torch.Tensor]:
    found = {f"{name}.weight": effective(tensors, module)}
    if f"{module}.bias" in tensors:
        found[f"{name}.bias"] = tensors[f"{module}.bias"].float()
    return found
