"""A checkpoint says what the original model says, in TensorRT-LLM's names, types and shapes."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import save_llama
from tests.convert.checkpoints import convert_model, effective, hf_state, int4_values
from toolkit.errors import BuildError, PlanInfeasible

F16, F32, I8, F8 = torch.float16, torch.float32, torch.int8, torch.float8_e4m3fn


def test_fp16_mapped_back_gives_the_original_logits_exactly(llama, tmp_path):
    folder, original = llama
    spec = convert_model(folder, tmp_path / "out", "fp16")
    ids = torch.arange(40).view(1, -1)

    with torch.inference_mode():
        expected = original(ids).logits.clone()
        saved = {name: tensor.clone() for name, tensor in original.state_dict().items()}
        original.load_state_dict(hf_state(tmp_path / "out", spec))
        found = original(ids).logits.clone()
        original.load_state_dict(saved)

    assert torch.equal(found, expected)


def test_biases_and_a_tied_head_come_along(tmp_path):
    original = save_llama(tmp_path / "hf", attention_bias=True, mlp_bias=True, tie_word_embeddings=True)
    spec = convert_model(tmp_path / "hf", tmp_path / "out", "fp16")

    state = hf_state(tmp_path / "out", spec)

    assert {name: tensor.tolist() for name, tensor in state.items()} == {
        name: tensor.tolist() for name, tensor in original.state_dict().items()
    }


def test_int8_carries_float_weights_for_trtllm_build_to_round(llama, tmp_path):
    folder, _ = llama
    convert_model(folder, tmp_path / "fp16", "fp16")
    convert_model(folder, tmp_path / "int8", "int8")

    assert (tmp_path / "fp16/rank0.safetensors").read_bytes() == (tmp_path / "int8/rank0.safetensors").read_bytes()
    quantization = json.loads((tmp_path / "int8/config.json").read_text())["quantization"]
    assert quantization == {"quant_algo": "W8A16", "kv_cache_quant_algo": None}


#: Of a layer of the tiny model (hidden 128, 4 heads of 32, 2 KV heads, intermediate 256), group size 64.
INT4_LAYER = {
    "attention.dense.prequant_scaling_factor": (F16, (128,)),
    "attention.dense.weight": (I8, (64, 128)),
    "attention.dense.weights_scaling_factor": (F32, (128, 2)),
    "attention.qkv.prequant_scaling_factor": (F16, (128,)),
    "attention.qkv.weight": (I8, (128, 128)),
    "attention.qkv.weights_scaling_factor": (F32, (256, 2)),
    "input_layernorm.weight": (F16, (128,)),
    "mlp.fc.prequant_scaling_factor": (F16, (128,)),
    "mlp.fc.weight": (I8, (128, 128)),
    "mlp.fc.weights_scaling_factor": (F32, (256, 2)),
    "mlp.gate.prequant_scaling_factor": (F16, (128,)),
    "mlp.gate.weight": (I8, (128, 128)),
    "mlp.gate.weights_scaling_factor": (F32, (256, 2)),
    "mlp.proj.prequant_scaling_factor": (F16, (256,)),
    "mlp.proj.weight": (I8, (64, 256)),
    "mlp.proj.weights_scaling_factor": (F32, (128, 4)),
    "post_layernorm.weight": (F16, (128,)),
}
LINEARS = {
    "attention.qkv": (256, 128),
    "attention.dense": (128, 128),
    "mlp.fc": (256, 128),
    "mlp.gate": (256, 128),
    "mlp.proj": (128, 256),
}
FP8_LAYER = {
    **{f"{module}.weight": (F8, shape) for module, shape in LINEARS.items()},
    **{f"{module}.weights_scaling_factor": (F32, (1,)) for module in LINEARS},
    **{f"{module}.activation_scaling_factor": (F32, (1,)) for module in LINEARS},
    "input_layernorm.weight": (F16, (128,)),
    "post_layernorm.weight": (F16, (128,)),
}
ENDS = {
    "lm_head.weight": (F16, (320, 128)),
    "transformer.ln_f.weight": (F16, (128,)),
    "transformer.vocab_embedding.weight": (F16, (320, 128)),
}


@pytest.mark.parametrize(
    ("recipe", "layer", "options"),
    [("int4", INT4_LAYER, {"group_size": 64}), ("int4_rtn", INT4_LAYER, {"group_size": 64}), ("fp8", FP8_LAYER, {})],
)
def test_names_types_and_shapes_are_tensorrt_llms(llama, tmp_path, recipe, layer, options):
    convert_model(llama[0], tmp_path / "out", recipe, **options)

    found = {name: (t.dtype, tuple(t.shape)) for name, t in load_file(tmp_path / "out/rank0.safetensors").items()}

    expected = {f"transformer.layers.{i}.{name}": kind for i in range(2) for name, kind in layer.items()}
    assert found == expected | ENDS


def test_plain_rounding_stays_within_half_a_step(llama, tmp_path):
    convert_model(llama[0], tmp_path / "out", "int4_rtn", group_size=64)
    convert_model(llama[0], tmp_path / "fp16", "fp16")
    tensors, originals = (load_file(tmp_path / name / "rank0.safetensors") for name in ("out", "fp16"))

    for module in LINEARS:
        name = f"transformer.layers.1.{module}"
        weight = originals[f"{name}.weight"].float()
        grouped = weight.view(weight.shape[0], -1, 64)
        assert torch.equal(tensors[f"{name}.weights_scaling_factor"], grouped.abs().amax(-1) / 7)
        step = tensors[f"{name}.weights_scaling_factor"].repeat_interleave(64, dim=1)
        assert ((effective(tensors, name) - weight).abs() <= step * 0.5001).all()
        assert (tensors[f"{name}.prequant_scaling_factor"] == 1).all()


def test_awq_uses_the_whole_range_and_changes_the_output_less_than_rounding(llama, tmp_path):
    folder, original = llama
    ids = torch.randint(0, 320, (4, 64), generator=torch.Generator().manual_seed(3))
    errors = {}
    with torch.inference_mode():
        expected = original(ids).logits.clone()
        saved = {name: tensor.clone() for name, tensor in original.state_dict().items()}
        for recipe in ("int4", "int4_rtn"):
            spec = convert_model(folder, tmp_path / recipe, recipe, group_size=64)
            original.load_state_dict(hf_state(tmp_path / recipe, spec))
            errors[recipe] = float((original(ids).logits - expected).pow(2).mean())
            original.load_state_dict(saved)
    integers = int4_values(load_file(tmp_path / "int4/rank0.safetensors")["transformer.layers.0.mlp.fc.weight"])

    assert errors["int4"] < 0.95 * errors["int4_rtn"]
    assert integers.min() == -8
    assert integers.max() == 7


def test_fp8_linears_that_share_an_input_share_scales(llama, tmp_path):
    convert_model(llama[0], tmp_path / "out", "fp8")
    convert_model(llama[0], tmp_path / "fp16", "fp16")
    tensors, originals = (load_file(tmp_path / name / "rank0.safetensors") for name in ("out", "fp16"))
    layer = "transformer.layers.0."

    for kind in ("weights_scaling_factor", "activation_scaling_factor"):
        assert torch.equal(tensors[f"{layer}mlp.fc.{kind}"], tensors[f"{layer}mlp.gate.{kind}"])
    for module in LINEARS:
        weight = originals[f"{layer}{module}.weight"].float()
        # E4M3 has 3 mantissa bits: half a step is 2^-4 of the value, and 2^-10 of the scale below its normal range.
        bound = weight.abs() * 2**-4 + tensors[f"{layer}{module}.weights_scaling_factor"] * 2**-10
        assert ((effective(tensors, layer + module) - weight).abs() <= bound * 1.001).all()
    qkv = originals[f"{layer}attention.qkv.weight"].float()
    assert torch.equal(tensors[f"{layer}attention.qkv.weights_scaling_factor"], (qkv.abs().max() / 448).view(1))


def test_config_says_what_the_model_is(llama, tmp_path):
    convert_model(llama[0], tmp_path / "out", "int4", group_size=32)

    config = json.loads((tmp_path / "out/config.json").read_text())

    assert config.pop("producer")["name"] == "trtk"
    assert config == {
        "architecture": "LlamaForCausalLM",
        "attn_bias": False,
        "dtype": "float16",
        "embedding_sharding_dim": 0,
        "head_size": 32,
        "hidden_act": "silu",
        "hidden_size": 128,
        "intermediate_size": 256,
        "logits_dtype": "float32",
        "mapping": {"world_size": 1, "tp_size": 1, "pp_size": 1, "cp_size": 1, "gpus_per_node": 8},
        "max_position_embeddings": 256,
        "mlp_bias": False,
        "norm_epsilon": 1e-5,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "position_embedding_type": "rope_gpt_neox",
        "quantization": {
            "exclude_modules": [
                "*lm_head",
                "*router",
                "*vocab_embedding",
                "*position_embedding",
                "*block_embedding",
                "*shared_expert_gate",
            ],
            "group_size": 32,
            "has_zero_point": False,
            "kv_cache_quant_algo": None,
            "pre_quant_scale": True,
            "quant_algo": "W4A16_AWQ",
        },
        "rotary_base": 10000.0,
        "rotary_scaling": None,
        "use_parallel_embedding": False,
        "vocab_size": 320,
    }


def test_the_same_plan_gives_the_same_bytes(llama, tmp_path):
    for name in ("one", "two"):
        convert_model(llama[0], tmp_path / name, "int4")

    assert (tmp_path / "one/rank0.safetensors").read_bytes() == (tmp_path / "two/rank0.safetensors").read_bytes()


def test_a_weight_beyond_float16_is_named(tmp_path):
    save_llama(tmp_path / "hf")
    from safetensors.torch import save_file

    path = tmp_path / "hf/model.safetensors"
    tensors = {name: tensor.float() for name, tensor in load_file(path).items()}
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = 70000.0
    save_file(tensors, path)

    with pytest.raises(BuildError, match=r"mlp.gate has the value 7e\+04, beyond float16") as caught:
        convert_model(tmp_path / "hf", tmp_path / "out", "fp16")

    assert caught.value.hint == "Use --dtype bfloat16."
    convert_model(tmp_path / "hf", tmp_path / "out", "fp16", dtype="bfloat16")


def test_a_group_size_that_does_not_divide_is_refused(llama, tmp_path):
    with pytest.raises(PlanInfeasible, match="--group-size 96 does not divide attention.qkv's K of 128"):
        convert_model(llama[0], tmp_path / "out", "int4", group_size=96)
