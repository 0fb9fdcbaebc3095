"""A model that is quantized already is kept as it is where the numbers allow, else it is said what happens to it."""

import json
import shlex

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from tests.checkpoint import quantized_models as made
from tests.convert.checkpoints import hf_state
from toolkit import models
from toolkit.cli import main
from toolkit.specs import ModelSource

FLOAT8 = {"kind": "float", "bits": 8}
STATIC_FP8 = made.compressed("float-quantized", strategy="tensor", **FLOAT8, inputs={"dynamic": False})
ROWS_FP8 = made.compressed("float-quantized", strategy="channel", **FLOAT8, inputs={"dynamic": True})
BLOCK_FP8 = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}


def static_fp8(weight):
    return made.e4m3(weight, inputs=float(weight.abs().max()))


def block_fp8(weight):
    return made.e4m3(weight, by="block", scale_name="weight_scale_inv")


def quantized(folder, options):
    """Quantize FOLDER into FOLDER/out; return the JSON result and the notes on stderr."""
    line = f"quantize {folder}/hf -o {folder}/out --calib-samples 2 --calib-length 16 --kv-cache none --json {options}"
    result = CliRunner().invoke(main, shlex.split(line))
    assert result.exit_code == 0, result.stderr
    notes = [line for line in result.stderr.splitlines() if line.startswith("The source")]
    return json.loads(result.stdout), notes


def spec_of(folder):
    return models.read(ModelSource(name="tiny", path=str(folder), revision="local"))


def logits(model, state):
    """Return a Hugging Face model's float32 logits under other weights."""
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        model.load_state_dict({name: tensor.float() for name, tensor in state.items()})
        found = model(torch.arange(40).view(1, -1)).logits.clone()
    model.load_state_dict(saved)
    return found


@pytest.mark.parametrize(
    ("pack", "config", "quant"),
    [
        (made.awq, made.AWQ, "int4"),
        (made.gptq, made.GPTQ, "keep"),
        (lambda w: made.gptq(w, group=w.shape[1]), {**made.GPTQ, "group_size": -1}, "int4_rtn"),
        (made.packed, made.compressed("pack-quantized", strategy="group", group=made.GROUP), "keep"),
        (lambda w: made.packed(w, group=w.shape[1]), made.compressed("pack-quantized", strategy="channel"), "keep"),
    ],
)
def test_symmetric_4_bit_integers_pass_through_and_give_the_same_logits(llama, tmp_path, pack, config, quant):
    meant = made.quantized_copy(llama[0], tmp_path / "hf", pack, config)

    said, notes = quantized(tmp_path, f"--quant {quant}")

    assert torch.equal(logits(llama[1], hf_state(tmp_path / "out", spec_of(tmp_path / "hf"))), logits(llama[1], meant))
    facts = ("quant_algo", "is_requantized", "kept_linears", "dequantized_linears")
    assert [said[key] for key in facts] == ["W4A16_AWQ", False, 14, 0]
    assert notes == [
        f"The source is quantized already ({said['source_quantization']}): its 14 linears pass through unchanged."
    ]


def test_the_groups_of_the_source_are_the_default(llama, tmp_path):
    made.quantized_copy(llama[0], tmp_path / "hf", made.gptq, made.GPTQ)

    said, _ = quantized(tmp_path, "--quant int4_rtn")

    assert said["group_size"] == made.GROUP
    assert json.loads((tmp_path / "out/config.json").read_text())["quantization"]["group_size"] == made.GROUP


def test_other_groups_than_the_sources_are_quantized_again(llama, tmp_path):
    made.quantized_copy(llama[0], tmp_path / "hf", made.gptq, made.GPTQ)

    said, notes = quantized(tmp_path, "--quant int4_rtn --group-size 128")

    assert (said["is_requantized"], said["kept_linears"], said["dequantized_linears"]) == (True, 0, 14)
    assert notes == [
        "The source is quantized already (GPTQ, 4 bits in groups of 64): it is dequantized "
        "(its groups have 64 inputs, and 128 were asked for) and quantized again."
    ]


@pytest.mark.parametrize(
    ("pack", "config", "reason"),
    [
        (lambda w: made.awq(w, is_symmetric=False), made.AWQ, "its zero points are not all 8"),
        (
            lambda w: made.packed(w, is_symmetric=False),
            made.compressed("pack-quantized", strategy="group", group=made.GROUP),
            "it has zero points",
        ),
        (block_fp8, BLOCK_FP8, "it is FP8_BLOCK_SCALES, and 16 bits were asked for"),
    ],
)
def test_what_cannot_be_kept_becomes_16_bits(llama, tmp_path, pack, config, reason):
    meant = made.quantized_copy(llama[0], tmp_path / "hf", pack, config)

    said, notes = quantized(tmp_path, "--quant keep --dtype float16")

    state = hf_state(tmp_path / "out", spec_of(tmp_path / "hf"))
    assert {name: torch.equal(tensor, meant[name].half().float()) for name, tensor in state.items()} == dict.fromkeys(
        meant, True
    )
    assert (said["quant_algo"], said["is_requantized"], said["dequantized_linears"]) == (None, False, 14)
    assert notes == [
        f"The source is quantized already ({said['source_quantization']}): it is dequantized ({reason}) "
        "and stored in 16 bits."
    ]


def test_fp8_parts_of_a_module_come_under_the_largest_scale(llama, tmp_path):
    made.quantized_copy(llama[0], tmp_path / "hf", static_fp8, STATIC_FP8)
    stored = load_file(tmp_path / "hf/model.safetensors")

    said, notes = quantized(tmp_path, "--quant keep")

    found = load_file(tmp_path / "out/rank0.safetensors")
    expected = {}
    for i in range(2):
        theirs, ours = f"model.layers.{i}.", f"transformer.layers.{i}."
        for group, modules in (
            (("self_attn.q", "self_attn.k", "self_attn.v"), {"attention.qkv": (0, 1, 2)}),
            (("self_attn.o",), {"attention.dense": (0,)}),
            (("mlp.gate", "mlp.up"), {"mlp.fc": (0,), "mlp.gate": (1,)}),
            (("mlp.down",), {"mlp.proj": (0,)}),
        ):
            names = [f"{theirs}{part}_proj." for part in group]
            scales = [stored[f"{name}weight_scale"] for name in names]
            top = torch.stack(scales).amax()
            under = [
                (stored[f"{name}weight"].float() * (scale / top)).to(torch.float8_e4m3fn)
                for name, scale in zip(names, scales, strict=True)
            ]
            for module, members in modules.items():
                expected[f"{ours}{module}.weight"] = torch.cat([under[m].float() for m in members])
                expected[f"{ours}{module}.weights_scaling_factor"] = top.view(1)
                expected[f"{ours}{module}.activation_scaling_factor"] = torch.stack(
                    [stored[f"{name}input_scale"] for name in names]
                ).amax(0)
    assert {name: torch.equal(found[name].float(), tensor) for name, tensor in expected.items()} == dict.fromkeys(
        expected, True
    )
    assert (said["quant_algo"], said["kept_linears"], said["is_requantized"]) == ("FP8", 14, False)
    assert notes == [
        "The source is quantized already (compressed-tensors, float-quantized, 8 bits): "
        "its 14 linears pass through, under one scale where the engine fuses them."
    ]


def test_fp8_rows_pass_through(llama, tmp_path):
    meant = made.quantized_copy(llama[0], tmp_path / "hf", lambda w: made.e4m3(w, by="row"), ROWS_FP8)

    said, _ = quantized(tmp_path, "--quant keep")

    found = load_file(tmp_path / "out/rank0.safetensors")
    module = "transformer.layers.1.attention.dense."
    weight = found[f"{module}weight"].float() * found[f"{module}per_channel_scale"].unsqueeze(1)
    assert torch.equal(weight, meant["model.layers.1.self_attn.o_proj.weight"].float())
    assert (said["quant_algo"], said["kept_linears"]) == ("FP8_PER_CHANNEL_PER_TOKEN", 14)


def test_a_layer_that_is_in_float_stays_so(llama, tmp_path):
    meant = made.quantized_copy(llama[0], tmp_path / "hf", made.gptq, made.GPTQ)
    name = "model.layers.1.mlp.down_proj."
    made.replace_tensors(tmp_path / "hf", name, {"weight": meant[f"{name}weight"].half()})

    said, _ = quantized(tmp_path, "--quant keep")

    assert (said["kept_linears"], said["dequantized_linears"], said["is_requantized"]) == (13, 0, False)
    found = load_file(tmp_path / "out/rank0.safetensors")
    assert torch.equal(found["transformer.layers.1.mlp.proj.weight"], meant[f"{name}weight"].half())
    assert found["transformer.layers.0.mlp.proj.weight"].dtype == torch.int8


def test_a_quantized_model_can_calibrate_another_format(llama, tmp_path):
    made.quantized_copy(llama[0], tmp_path / "hf", static_fp8, STATIC_FP8)

    said, notes = quantized(tmp_path, "--quant int4")

    assert (said["quant_algo"], said["is_requantized"], said["dequantized_linears"]) == ("W4A16_AWQ", True, 14)
    assert notes[0].endswith("it is dequantized (it is FP8, and W4A16_AWQ was asked for) and quantized again.")


def test_a_model_in_float_has_nothing_to_keep(llama, tmp_path):
    result = CliRunner().invoke(main, ["quantize", str(llama[0]), "--quant", "keep", "-o", str(tmp_path / "out")])

    assert result.exit_code == 2
    assert "The model is not quantized, so --quant keep has nothing to keep." in result.stderr


@pytest.mark.parametrize("method", ["bitsandbytes", "mxfp4", "hqq"])
def test_a_method_that_is_not_read_is_refused_with_those_that_are(llama, tmp_path, method):
    made.quantized_copy(llama[0], tmp_path / "hf", made.awq, {"quant_method": method})

    result = CliRunner().invoke(
        main, ["quantize", str(tmp_path / "hf"), "--quant", "int4", "-o", str(tmp_path / "out")]
    )

    assert result.exit_code == 3
    assert f"is quantized by the method '{method}', which trtk does not read; it reads awq, compressed" in result.stderr
    assert "Hint: Give the model's original 16-bit weights." in result.stderr
