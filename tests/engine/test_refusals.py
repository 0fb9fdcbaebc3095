"""What the CPU engine cannot serve right is refused with the reason, at the latest when it is compiled."""

import json

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import save_model
from tests.convert.checkpoints import convert_model
from toolkit.engine.checkpoint_reader import CheckpointReader
from toolkit.engine.checkpoint_spec import spec_of
from toolkit.engine.openvino_graph import decoder_model
from toolkit.engine.openvino_paged import need_windows, paged_windows
from toolkit.errors import BuildError, PlanInfeasible

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def checkpoint(llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("refused") / "out"
    convert_model(llama[0], folder, "fp16")
    return folder


def with_config(checkpoint, folder, **changes):
    """Return a checkpoint of the same weights whose config.json says something else."""
    folder.mkdir()
    (folder / "rank0.safetensors").symlink_to(checkpoint / "rank0.safetensors")
    config = json.loads((checkpoint / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


def quantized_as(algo, **more):
    return {"quantization": {"quant_algo": algo, "kv_cache_quant_algo": None, **more}}


REFUSED = [
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping 50.0: OpenVINO's paged attention has no softcap"),
    ({"architecture": "FalconForCausalLM"}, "does not know the architecture 'FalconForCausalLM'"),
    ({"position_embedding_type": "alibi"}, "does not know the position_embedding_type 'alibi'"),
    ({"hidden_act": "relu"}, "does not know the hidden_act 'relu'"),
    ({"rotary_scaling": {"type": "xpos"}}, "does not know rope_type 'xpos'"),
    ({"residual_multiplier": 0.22}, "does not compute residual_multiplier = 0.22"),
    ({"moe": {"num_experts": 8, "top_k": 2, "normalization_mode": 2}}, "expert normalization_mode 2"),
    ({"mapping": {"world_size": 2, "tp_size": 2, "pp_size": 1}}, "divided among 2 ranks (tp 2, pp 1)"),
    (quantized_as("FP8"), "does not serve FP8: it computes activations in float32"),
    (quantized_as("W4A16_GPTQ"), "does not serve W4A16_GPTQ"),
    (quantized_as(None) | {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}, "KV cache as FP8"),
    (
        {"rotary_scaling": {"rope_type": "dynamic", "factor": 2.0}, "max_position_embeddings": 64},
        "Beyond 64 tokens this model's rope turns every token of a text otherwise",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_the_reason_is_named(checkpoint, tmp_path, changes, reason):
    with pytest.raises(PlanInfeasible) as caught:
        decoder_model(CheckpointReader(with_config(checkpoint, tmp_path / "changed", **changes)), max_seq_len=128)

    assert reason in str(caught.value)


def test_one_module_of_a_mixed_checkpoint_is_enough(checkpoint, tmp_path):
    folder = with_config(checkpoint, tmp_path / "mixed", **quantized_as("MIXED_PRECISION"))
    layers = {"transformer.layers.1.mlp.proj": {"quant_algo": "NVFP4", "group_size": 16}}
    (folder / "quant_cfg.json").write_text(json.dumps({"quantized_layers": layers}))

    with pytest.raises(PlanInfeasible, match="does not serve NVFP4"):
        CheckpointReader(folder)


def test_tensors_that_nobody_asked_for_are_not_left_out(checkpoint, tmp_path):
    folder = with_config(checkpoint, tmp_path / "more")
    tensors = load_file(checkpoint / "rank0.safetensors")
    tensors["transformer.layers.0.attention.q_layernorm.weight"] = tensors["transformer.ln_f.weight"][:32].clone()
    (folder / "rank0.safetensors").unlink()
    save_file(tensors, folder / "rank0.safetensors")

    with pytest.raises(PlanInfeasible, match=r"would leave out transformer.layers.0.attention.q_layernorm.weight,"):
        decoder_model(CheckpointReader(folder))


@pytest.mark.parametrize("algo", [None, "W8A16"])
def test_integers_where_floats_should_be_are_named(llama, tmp_path, algo):
    convert_model(llama[0], tmp_path / "int4", "int4_rtn")
    folder = with_config(tmp_path / "int4", tmp_path / "changed", **quantized_as(algo))

    with pytest.raises(BuildError, match=r"transformer.layers.0.attention.qkv.weight holds I8"):
        decoder_model(CheckpointReader(folder))


def test_a_tensor_that_the_architecture_needs_is_named(checkpoint, tmp_path):
    folder = with_config(checkpoint, tmp_path / "less", architecture="Qwen3ForCausalLM")

    with pytest.raises(BuildError, match=r"has no tensor transformer.layers.0.attention.q_layernorm.weight"):
        decoder_model(CheckpointReader(folder))


def test_paged_attention_keeps_every_layers_window_or_the_build_stops(tmp_path):
    gemma = {"architecture": "Gemma3ForCausalLM", "num_hidden_layers": 3, "sliding_window_pattern": 3}
    save_model(tmp_path / "hf", **gemma)
    convert_model(tmp_path / "hf", tmp_path / "out", "fp16")
    reader = CheckpointReader(tmp_path / "out")
    model, _weights = decoder_model(reader)

    assert paged_windows(model) == [16, 16, None]
    need_windows(model, spec_of(reader.config))
    with pytest.raises(BuildError, match=r"the windows \[16, 16, None\] where the layers have \[None, None, None\]"):
        need_windows(model, spec_of({**reader.config, "sliding_window": None}))
