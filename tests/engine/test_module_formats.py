"""A checkpoint's formats are read module by module."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.convert.checkpoints import convert_model, hf_state
from tests.engine.engines import Engine
from tests.engine.test_families import torch_logits
from tests.engine.test_openvino_graph import rounded_to_int8
from toolkit.engine.module_formats import ModuleFormats

MIXED = {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": None}


def test_config_json_excludes_by_pattern():
    formats = ModuleFormats({"quant_algo": "W8A16", "exclude_modules": ["*lm_head", "*.layers.0.*"]}, {})

    assert formats.algo_of("transformer.layers.1.mlp.fc") == "W8A16"
    assert formats.algo_of("transformer.layers.0.mlp.fc") is None
    assert formats.algo_of("lm_head") is None


def test_no_list_of_exclusions_means_tensorrt_llms_own():
    formats = ModuleFormats({"quant_algo": "W8A16"}, {})

    assert formats.algo_of("transformer.layers.1.mlp.shared_expert.fc") == "W8A16"
    assert formats.algo_of("transformer.layers.1.mlp.shared_expert_gate") is None
    assert formats.algo_of("transformer.layers.1.mlp.router") is None


def test_mixed_precision_is_looked_up_by_name_then_by_pattern():
    layers = {
        "transformer.layers.1.mlp.fc": {"quant_algo": "W8A16"},
        "transformer.layers.*.mlp.*": {"quant_algo": "W4A16_AWQ"},
    }
    formats = ModuleFormats(MIXED, layers)

    assert formats.algo_of("transformer.layers.1.mlp.fc") == "W8A16"
    assert formats.algo_of("transformer.layers.2.mlp.fc") == "W4A16_AWQ"
    assert formats.algo_of("transformer.layers.2.attention.qkv") is None


def rounded_to_int4(weight):
    """trtllm-build's rule for W4A16: amax/8 per output channel, kept in 16 bits."""
    scale = (weight.abs().amax(1, keepdim=True) / 8).half().float()
    return (weight / scale).round().clamp(-8, 7) * scale


@pytest.mark.engine
def test_a_mixed_checkpoint_computes_each_module_in_its_own_format(llama, tmp_path):
    folder, original = llama
    spec = convert_model(folder, tmp_path / "float", "fp16")
    convert_model(folder, tmp_path / "int4", "int4_rtn")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    plain, packed = (load_file(tmp_path / name / "rank0.safetensors") for name in ("float", "int4"))
    is_int4 = "attention.qkv"
    tensors = {name: tensor for name, tensor in plain.items() if is_int4 not in name}
    tensors |= {name: tensor for name, tensor in packed.items() if is_int4 in name}
    save_file(tensors, mixed / "rank0.safetensors")
    config = json.loads((tmp_path / "float/config.json").read_text())
    (mixed / "config.json").write_text(json.dumps({**config, "quantization": MIXED}))
    layers = {
        "*.attention.qkv": {"quant_algo": "W4A16_AWQ", "group_size": 128},
        "*.attention.dense": {"quant_algo": "W8A16"},
        "transformer.layers.1.mlp.proj": {"quant_algo": "W4A16"},
    }
    (mixed / "quant_cfg.json").write_text(json.dumps({**MIXED, "quantized_layers": layers}))
    ids = torch.randint(0, 320, (1, 24), generator=torch.Generator().manual_seed(5))

    found = Engine(mixed).logits(ids, pieces=(24,))

    state, int4_state = hf_state(tmp_path / "float", spec), hf_state(tmp_path / "int4", spec)
    state |= {name: t for name, t in int4_state.items() if any(f"{part}_proj.weight" in name for part in "qkv")}
    state |= {name: rounded_to_int8(t) for name, t in state.items() if "o_proj" in name}
    state |= {name: rounded_to_int4(t) for name, t in state.items() if "layers.1.mlp.down_proj" in name}
    with torch.inference_mode():
        expected = torch.func.functional_call(original, state, (ids,)).logits
    torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-3)


@pytest.mark.engine
@pytest.mark.parametrize("recipe", ["int8", "int4_rtn"])
def test_what_the_converter_excluded_stays_in_16_bits(llama, tmp_path, recipe):
    spec = convert_model(llama[0], tmp_path / "out", recipe, exclude=("*.mlp.proj", "*layers.0.attention.*"))
    ids = torch.randint(0, 320, (1, 24), generator=torch.Generator().manual_seed(5))

    engine = Engine(tmp_path / "out")

    stored = "i8" if recipe == "int8" else "i4"
    constants = [node for node in engine.model.get_ops() if node.get_type_name() == "Constant"]
    kinds = [node.get_element_type().get_type_name() for node in constants]
    assert kinds.count(stored) == 6  # fc and gate of both layers, qkv and dense of one
    torch.testing.assert_close(
        engine.logits(ids, pieces=(24,)), torch_logits(tmp_path / "out", spec, ids), atol=2e-4, rtol=1e-3
    )
