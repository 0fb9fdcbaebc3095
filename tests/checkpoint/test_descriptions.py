"""What a checkpoint says of itself: exclusions, mixed precision and the KV cache, in each layout's words."""

import json

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import save_model
from tests.convert.checkpoints import CALIBRATION, convert_model
from toolkit import models, plan, quant
from toolkit.checkpoint import hf_config, trtllm_config
from toolkit.checkpoint.assignment import assign
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.specs import STAYS_16_BIT, ModelSource, Sharding

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {name: tmp_path_factory.mktemp(name) for name in ("LlamaForCausalLM", "MixtralForCausalLM")}
    for architecture, folder in made.items():
        save_model(folder, architecture=architecture, hidden_size=256, num_hidden_layers=2)
    return made


def planned(folder, recipe, **asked):
    spec = models.read(ModelSource(name="tiny", path=str(folder), revision="local"))
    return plan.conversion(spec, quant.get(recipe), asked=plan.AskedCheckpoint(**asked), calibration=CALIBRATION)


def test_excluded_modules_stay_in_16_bits_and_are_listed(folders, tmp_path):
    folder = folders["LlamaForCausalLM"]
    exclude = ("*layers.0.attention.qkv", "model.layers.1.mlp.up_proj")  # either side's names
    convert_model(folder, tmp_path / "out", "int4_rtn", exclude=exclude)
    convert_model(folder, tmp_path / "hf", "int4_rtn", exclude=exclude, layout="hf")

    quantization = json.loads((tmp_path / "out/config.json").read_text())["quantization"]
    assert quantization["quant_algo"] == "W4A16_AWQ"
    assert quantization["exclude_modules"] == [
        *STAYS_16_BIT,
        "transformer.layers.0.attention.qkv",
        "transformer.layers.1.mlp.fc",  # shares its input with what was named
        "transformer.layers.1.mlp.gate",
    ]
    tensors = load_file(tmp_path / "out/rank0.safetensors")
    floats = {name for name, tensor in tensors.items() if name.endswith(".weight") and tensor.dtype == torch.float16}
    modules = {"transformer.layers.0.attention.qkv", "transformer.layers.1.mlp.fc", "transformer.layers.1.mlp.gate"}
    assert {f"{name}.weight" for name in modules} <= floats
    assert not any(f"{name}.weights_scaling_factor" in tensors for name in modules)
    nested = json.loads((tmp_path / "hf/hf_quant_config.json").read_text())["quantization"]
    assert nested["exclude_modules"] == [
        "lm_head",
        "model.embed_tokens",
        *(f"model.layers.0.self_attn.{part}_proj" for part in "kqv"),
        "model.layers.1.mlp.gate_proj",
        "model.layers.1.mlp.up_proj",
    ]


def test_int8_exclusions_name_tensors_for_that_is_what_the_builder_matches(folders):
    made = planned(folders["LlamaForCausalLM"], "int8", exclude=("*layers.1.mlp.proj",))
    config = trtllm_config.documents(made, assign(made))["config.json"]

    assert config["quantization"]["exclude_modules"] == [
        *STAYS_16_BIT,
        "transformer.layers.1.mlp.proj.weight",
        "transformer.layers.1.mlp.proj",
        "*shared_expert_gate.weight",
    ]


def test_a_mixtures_products_are_excluded_together(folders):
    made = planned(folders["MixtralForCausalLM"], "fp8", exclude=("*layers.0.mlp.proj",))
    assignment = assign(made)

    assert assignment.of[0, "mlp.fc"] is None
    excluded = trtllm_config.documents(made, assignment)["config.json"]["quantization"]["exclude_modules"]
    assert set(excluded) - set(STAYS_16_BIT) == {f"transformer.layers.0.mlp{part}" for part in ("", ".fc", ".proj")}


def test_a_pattern_that_names_nothing_is_refused(folders, tmp_path):
    with pytest.raises(UsageError, match=r"--exclude '\*\.down' matches no module") as caught:
        convert_model(folders["LlamaForCausalLM"], tmp_path / "out", "fp8", exclude=("*.down",))

    assert caught.value.hint == (
        "Modules are named like transformer.layers.0.mlp.proj or model.layers.0.mlp.down_proj."
    )


def test_mixed_precision_is_said_module_by_module(folders):
    folder = folders["LlamaForCausalLM"]
    made = planned(folder, "int4", layout="trtllm", kv_cache="fp8")
    searched = {(0, "mlp.proj"): quant.get("fp8"), (1, "attention.qkv"): quant.get("int8_sq"), (1, "mlp.fc"): None}
    assignment = assign(made, searched)

    documents = trtllm_config.documents(made, assignment)

    assert list(documents) == ["quant_cfg.json", "config.json"]
    assert documents["config.json"]["quantization"] == {"quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": "FP8"}
    awq = {"quant_algo": "W4A16_AWQ", "group_size": 128, "has_zero_point": False, "pre_quant_scale": True}
    names = ["attention.qkv", "attention.dense", "mlp.fc", "mlp.gate", "mlp.proj"]
    expected = {f"transformer.layers.{layer}.{name}": awq for layer in range(2) for name in names}
    expected["transformer.layers.0.mlp.proj"] = {"quant_algo": "FP8"}
    expected["transformer.layers.1.attention.qkv"] = {"quant_algo": "W8A8_SQ_PER_CHANNEL"}
    del expected["transformer.layers.1.mlp.fc"], expected["transformer.layers.1.mlp.gate"]
    assert documents["quant_cfg.json"] == {
        "quant_algo": "MIXED_PRECISION",
        "kv_cache_quant_algo": "FP8",
        "quantized_layers": expected,
    }

    unified = hf_config.documents(made, assignment, folder)
    nested, flat = unified["hf_quant_config.json"]["quantization"], unified["config.json"]["quantization_config"]
    assert nested["quant_algo"] == "MIXED_PRECISION"
    assert nested["quantized_layers"]["model.layers.0.mlp.down_proj"] == {"quant_algo": "FP8"}
    assert nested["quantized_layers"]["model.layers.1.mlp.down_proj"] == awq
    assert nested["exclude_modules"][2:] == ["model.layers.1.mlp.gate_proj", "model.layers.1.mlp.up_proj"]
    assert flat["quantized_layers"] == nested["quantized_layers"]
    targets = [group["targets"] for group in flat["config_groups"].values()]
    assert sorted(name for names in targets for name in names) == sorted(nested["quantized_layers"])
    assert ["model.layers.0.mlp.down_proj"] in targets


def test_stages_that_would_need_different_words_for_one_name_are_refused(folders, tmp_path):
    with pytest.raises(PlanInfeasible, match=r"With --pp 2, transformer.layers.0.mlp.proj is"):
        convert_model(
            folders["LlamaForCausalLM"],
            tmp_path / "out",
            "fp8",
            exclude=("*layers.0.mlp.proj",),
            sharding=Sharding(pp=2),
        )
    assert not list((tmp_path / "out.partial").glob("rank*"))


@pytest.mark.parametrize("layout", ["trtllm", "hf"])
def test_nothing_quantized_is_no_algorithm(folders, layout):
    made = planned(folders["LlamaForCausalLM"], "fp8", exclude=("*",), layout=layout, kv_cache="fp8")
    folder = folders["LlamaForCausalLM"]
    if layout == "trtllm":
        found = trtllm_config.documents(made, assign(made))["config.json"]["quantization"]
        assert found == {"quant_algo": None, "kv_cache_quant_algo": "FP8"}
    else:
        found = hf_config.documents(made, assign(made), folder)["hf_quant_config.json"]["quantization"]
        assert (found["quant_algo"], found["kv_cache_quant_algo"]) == (None, "FP8")


def test_int8_keys_and_values_get_the_largest_that_hugging_faces_model_caches(tmp_path):
    """One scale for both, as the engine has one: the largest key or value over 127, keys as they are cached: turned."""
    from transformers import DynamicCache

    model = save_model(tmp_path / "hf", initializer_range=0.2)
    convert_model(tmp_path / "hf", tmp_path / "out", "int8", kv_cache="int8", dtype="float16")
    ids = calibration_ids(tmp_path / "hf")

    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(ids, past_key_values=cache)
    tensors = load_file(tmp_path / "out/rank0.safetensors")
    for index, layer in enumerate(cache.layers):
        expected = max(float(layer.keys.abs().max()), float(layer.values.abs().max())) / 127
        found = tensors[f"transformer.layers.{index}.attention.kv_cache_scaling_factor"]
        assert found.tolist() == pytest.approx([expected], rel=1e-4)
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["quantization"] == {"quant_algo": "W8A16", "kv_cache_quant_algo": "INT8"}


def calibration_ids(folder):
    """Return the text that the model writes for itself, which is the same every time."""
    from toolkit.checkpoint.shards import Shards
    from toolkit.checkpoint.source import SourceModel
    from toolkit.forward.self_text import SelfWriter
    from toolkit.models import family_of

    spec = models.read(ModelSource(name="tiny", path=str(folder), revision="local"))
    source = SourceModel(Shards(folder), family_of(spec.architecture).tensors, spec)
    with torch.inference_mode():
        return SelfWriter(source.in_float(), spec).write(CALIBRATION, folder, lambda *_: None)
