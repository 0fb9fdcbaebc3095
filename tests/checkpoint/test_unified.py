"""A unified checkpoint, read as plain weights, is the model that the TensorRT-LLM checkpoint is."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import save_model
from tests.convert.checkpoints import convert_model, int4_values

pytestmark = pytest.mark.usefixtures("one_thread")
MODELS = {
    "llama": ("LlamaForCausalLM", {"attention_bias": True}),
    "tied llama": ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    "gemma2": ("Gemma2ForCausalLM", {}),  # norms before and behind, stored less 1
    "qwen3": ("Qwen3ForCausalLM", {}),
    "qwen2-moe": ("Qwen2MoeForCausalLM", {}),
    "phi3": ("Phi3ForCausalLM", {}),  # fused linears
}
SHAPE = {"hidden_size": 128, "num_hidden_layers": 2}


@pytest.fixture(params=MODELS)
def original(request, tmp_path):
    """A folder, and Hugging Face's own model of it in float32."""
    architecture, changes = MODELS[request.param]
    return tmp_path / "hf", save_model(tmp_path / "hf", architecture=architecture, **{**SHAPE, **changes})


def plain_weights(folder):
    """Return the float32 tensors that a unified checkpoint stands for, by its own words; factors undone in weights."""
    tensors = load_file(folder / "model.safetensors")
    found = {}
    for name, tensor in tensors.items():
        module, _, field = name.rpartition(".")
        scale = tensors.get(f"{module}.weight_scale")
        if field not in {"weight", "bias"}:
            continue
        if field == "bias" or scale is None:
            found[name] = tensor.float()
            continue
        if tensor.dtype == torch.uint8:  # two 4-bit rows in a byte
            rows = int4_values(tensor)
            weight = (rows.view(rows.shape[0], scale.shape[1], -1) * scale.unsqueeze(-1)).view_as(rows)
        else:
            weight = tensor.float() * (scale.unsqueeze(1) if scale.dim() == 1 else scale)
        found[name] = weight * tensors.get(f"{module}.pre_quant_scale", torch.ones(())).float()
    return found


def logits_of(folder, weights, target):
    """Return the logits of Hugging Face's model with other weights."""
    from transformers import AutoModelForCausalLM

    shutil.copytree(folder, target)
    save_file({name: t.contiguous() for name, t in weights.items()}, target / "model.safetensors", {"format": "pt"})
    model = AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32)
    with torch.inference_mode():
        return model(torch.arange(3, 43).view(1, -1)).logits


@pytest.mark.parametrize("recipe", ["int4_rtn", "int4", "int8", "fp8"])
def test_its_logits_are_the_originals_within_the_formats_rounding(original, tmp_path, recipe):
    folder, model = original
    options = {"group_size": 32} if recipe.startswith("int4") else {}
    convert_model(folder, tmp_path / "out", recipe, layout="hf", **options)

    found = logits_of(folder, plain_weights(tmp_path / "out"), tmp_path / "back")

    with torch.inference_mode():
        expected = model(torch.arange(3, 43).view(1, -1)).logits
    error = float((found - expected).norm() / expected.norm())
    assert error < {"int4_rtn": 0.3, "int4": 0.3, "int8": 0.02, "fp8": 0.08}[recipe]


def test_fp16_is_the_original_and_keeps_its_files(original, tmp_path):
    folder, _ = original
    convert_model(folder, tmp_path / "out", "fp16", layout="hf")

    expected = load_file(folder / "model.safetensors")
    found = load_file(tmp_path / "out/model.safetensors")
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        # 1 is added to Gemma's norms when they are read, and taken off again.
        assert torch.allclose(found[name].float(), tensor.float(), rtol=0, atol=2**-22 if "norm" in name else 0), name
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
    assert json.loads((tmp_path / "out/config.json").read_text()) == json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize(
    ("architecture", "mlp_norm", "offset"),
    [("LlamaForCausalLM", "post_attention_layernorm", 0.0), ("Gemma2ForCausalLM", "pre_feedforward_layernorm", 1.0)],
)
def test_input_factors_of_what_reads_a_norm_are_in_that_norm(tmp_path, architecture, mlp_norm, offset):
    save_model(tmp_path / "source", architecture=architecture)
    for layout in ("trtllm", "hf"):
        convert_model(tmp_path / "source", tmp_path / layout, "int4", layout=layout, group_size=32)
    source, found = (load_file(tmp_path / name / "model.safetensors") for name in ("source", "hf"))
    unfolded = load_file(tmp_path / "trtllm/rank0.safetensors")

    ours, theirs = "model.layers.1.", "transformer.layers.1."
    for norm, module in (("input_layernorm", "attention.qkv"), (mlp_norm, "mlp.fc")):
        factors = unfolded[f"{theirs}{module}.prequant_scaling_factor"].float()
        expected = (source[f"{ours}{norm}.weight"].float() + offset) * factors - offset
        assert torch.equal(found[f"{ours}{norm}.weight"], expected.half())
        assert not torch.equal(factors, torch.ones_like(factors))
    for name, module in (("self_attn.o_proj", "attention.dense"), ("mlp.down_proj", "mlp.proj")):
        factors = unfolded[f"{theirs}{module}.prequant_scaling_factor"]
        assert torch.equal(found[f"{ours}{name}.pre_quant_scale"], factors)
    assert sum(name.endswith("pre_quant_scale") for name in found) == 2 * 2  # o_proj and down_proj of two layers
    gate = unfolded[f"{theirs}mlp.fc.weight"]
    assert torch.equal(found[f"{ours}mlp.gate_proj.weight"], gate.view(torch.uint8))


def test_experts_keep_their_input_factors_for_the_router_reads_the_same_norm(tmp_path):
    save_model(tmp_path / "source", architecture="MixtralForCausalLM")
    convert_model(tmp_path / "source", tmp_path / "hf", "int4", layout="hf", group_size=32)
    source, found = (load_file(tmp_path / name / "model.safetensors") for name in ("source", "hf"))

    norm = "model.layers.0.post_attention_layernorm.weight"
    assert torch.equal(found[norm], source[norm])
    for part in ("w1", "w2", "w3"):
        assert f"model.layers.0.block_sparse_moe.experts.3.{part}.pre_quant_scale" in found
    excluded = json.loads((tmp_path / "hf/hf_quant_config.json").read_text())["quantization"]["exclude_modules"]
    assert excluded == [
        "lm_head",
        "model.embed_tokens",
        "model.layers.0.block_sparse_moe.gate",
        "model.layers.1.block_sparse_moe.gate",
    ]


def test_block_fp8_is_described_in_deepseeks_words(tmp_path):
    save_model(tmp_path / "source", hidden_size=256, num_key_value_heads=2, head_dim=64)
    convert_model(tmp_path / "source", tmp_path / "hf", "fp8_block", layout="hf", exclude=("*layers.0.mlp*",))

    found = load_file(tmp_path / "hf/model.safetensors")
    config = json.loads((tmp_path / "hf/config.json").read_text())["quantization_config"]
    assert config == {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
        "modules_to_not_convert": [
            "lm_head",
            "model.embed_tokens",
            "model.layers.0.mlp.down_proj",
            "model.layers.0.mlp.gate_proj",
            "model.layers.0.mlp.up_proj",
        ],
    }
    assert found["model.layers.1.mlp.up_proj.weight_scale_inv"].shape == (2, 2)
    assert found["model.layers.0.mlp.up_proj.weight"].dtype == torch.float16
    assert not (tmp_path / "hf/hf_quant_config.json").exists()
