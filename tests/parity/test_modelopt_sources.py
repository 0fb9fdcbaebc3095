"""ModelOpt's unified checkpoints are sources: read as the numbers in their files, and kept as they are."""

import json

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from tests.checkpoint.test_sources import opened
from tests.convert.checkpoints import int4_values
from tests.parity import modelopt_exports as peer
from toolkit import quant
from toolkit.cli import main
from toolkit.models.parts import tensor_name

pytestmark = pytest.mark.slow
E2M1 = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def fp8(stored):
    return stored["weight"].float() * stored["weight_scale"].float()


def rows(stored):
    return stored["weight"].float() * stored["weight_scale"].float().view(-1, 1)


def int4(stored):
    scales = stored["weight_scale"].repeat_interleave(128, dim=1)
    factors = stored.get("pre_quant_scale", torch.ones(scales.shape[1]))
    return int4_values(stored["weight"].view(torch.uint8)) * scales * factors.float()


def w4a8(stored):
    """The integers pass through E4M3 under the second scale."""
    second = stored["weight_scale_2"].float()
    plain = int4_values(stored["weight"].view(torch.uint8)) * stored["weight_scale"].repeat_interleave(128, dim=1)
    factors = stored.get("pre_quant_scale", torch.ones(plain.shape[1]))
    return (plain / second).clamp(-448, 448).to(torch.float8_e4m3fn).float() * second * factors.float()


def nvfp4(stored):
    codes = stored["weight"].view(torch.uint8)
    values = torch.stack((E2M1[(codes & 15).long()], E2M1[(codes >> 4).long()]), dim=-1).flatten(1)
    scales = stored["weight_scale"].float() * stored["weight_scale_2"].float()
    return values * scales.repeat_interleave(16, dim=1)


FORMATS = {
    "fp8": (fp8, "FP8"),
    "fp8_rowwise": (rows, "FP8_PER_CHANNEL_PER_TOKEN"),
    "int4": (int4, "W4A16_AWQ"),
    "w4a8_awq": (w4a8, "W4A8_AWQ"),
    "nvfp4": (nvfp4, "NVFP4"),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Return the folder of a Llama that ModelOpt quantized by a recipe and exported."""
    base = tmp_path_factory.mktemp("modelopt")
    peer.save_family(base / "hf", "llama")

    def made(recipe):
        if not (base / recipe).is_dir():
            peer.export_hf(peer.quantized(base / "hf", "llama", recipe), base / recipe)
            tokenizer = (base / "hf/tokenizer.json").read_bytes()
            (base / recipe / "tokenizer.json").write_bytes(tokenizer)
        return base / recipe

    return made


def below(tensors, module):
    return {name.removeprefix(module): tensor for name, tensor in tensors.items() if name.startswith(module)}


@pytest.mark.parametrize("recipe", FORMATS)
def test_every_linear_is_the_number_in_the_file(exported, recipe):
    folder = exported(recipe)
    decode, algo = FORMATS[recipe]
    tensors, source = load_file(folder / "model.safetensors"), opened(folder)

    for part, linear in source.layer(0).linears.items():
        expected = decode(below(tensors, f"model.layers.0.{tensor_name(source.names, part)}."))
        torch.testing.assert_close(quant.as_float(linear).weight, expected, rtol=3e-7, atol=0, msg=part)
        assert (linear.algo, source.kind(0, part).algo) == (algo, algo)


@pytest.mark.parametrize("recipe", FORMATS)
def test_keep_writes_the_same_bytes_for_the_engine(exported, tmp_path, recipe):
    folder = exported(recipe)
    line = ["quantize", str(folder), "--quant", "keep", "--kv-cache", "none", "--json", "-o", str(tmp_path / "out")]

    result = CliRunner().invoke(main, line)

    assert result.exit_code == 0, result.stderr
    said = json.loads(result.stdout)
    assert (said["quant_algo"], said["kept_linears"], said["is_requantized"]) == (FORMATS[recipe][1], 7, False)
    theirs, ours = load_file(folder / "model.safetensors"), load_file(tmp_path / "out/rank0.safetensors")
    stored = below(theirs, "model.layers.0.mlp.down_proj.")
    found = below(ours, "transformer.layers.0.mlp.proj.")
    assert torch.equal(found["weight"].view(torch.uint8), stored["weight"].view(torch.uint8))
    if "pre_quant_scale" in stored:
        assert torch.equal(found["prequant_scaling_factor"], stored["pre_quant_scale"].half())
    if "input_scale" in stored:
        assert torch.equal(found["activation_scaling_factor"].view(()), stored["input_scale"])
