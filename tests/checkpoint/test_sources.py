"""Checkpoints that are quantized already are read as the numbers that their packers meant, to the last bit."""

import pytest
import torch

from tests.checkpoint import quantized_models as made
from toolkit import models, quant
from toolkit.checkpoint.shards import Shards
from toolkit.checkpoint.source import SourceModel
from toolkit.checkpoint.stored import Kind
from toolkit.models.parts import tensor_name

G = made.GROUP
V2 = {**made.GPTQ, "checkpoint_format": "gptq_v2"}
BLOCKS = {"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}
PLAIN_FP8 = {"quant_method": "fp8", "activation_scheme": "static"}
FLOAT8 = {"kind": "float", "bits": 8}
ASYMMETRIC = Kind(algo=None, reason="its zero points are not all 8")
INT4, CHANNEL = Kind(algo="W4A16_AWQ", group_size=G), Kind(algo="W4A16_AWQ", group_size=128)
ROWS = Kind(algo="FP8_PER_CHANNEL_PER_TOKEN")
#: name → packer, quantization_config, what the first linear (K = 128) can be kept as, the title
FORMATS = {
    "awq": (made.awq, made.AWQ, INT4, "AutoAWQ, 4 bits in groups of 64"),
    "awq zero points": (
        lambda w: made.awq(w, is_symmetric=False),
        made.AWQ,
        ASYMMETRIC,
        "AutoAWQ, 4 bits in groups of 64",
    ),
    "gptq": (made.gptq, made.GPTQ, INT4, "GPTQ, 4 bits in groups of 64"),
    "gptq v2": (lambda w: made.gptq(w, offset=0), V2, INT4, "GPTQ, 4 bits in groups of 64"),
    "gptq zero points": (
        lambda w: made.gptq(w, is_symmetric=False),
        made.GPTQ,
        ASYMMETRIC,
        "GPTQ, 4 bits in groups of 64",
    ),
    "gptq 8 bits": (
        lambda w: made.gptq(w, bits=8),
        {**made.GPTQ, "bits": 8},
        Kind(algo=None, reason="it has 8 bits"),
        "GPTQ, 8 bits in groups of 64",
    ),
    "gptq by channel": (
        lambda w: made.gptq(w, group=w.shape[1]),
        {**made.GPTQ, "group_size": -1},
        CHANNEL,
        "GPTQ, 4 bits by channel",
    ),
    "compressed int4": (
        made.packed,
        made.compressed("pack-quantized", strategy="group", group=G),
        INT4,
        "compressed-tensors, pack-quantized, 4 bits in groups of 64",
    ),
    "compressed int4 by channel": (
        lambda w: made.packed(w, group=w.shape[1]),
        made.compressed("pack-quantized", strategy="channel"),
        CHANNEL,
        "compressed-tensors, pack-quantized, 4 bits",
    ),
    "compressed int4 zero points": (
        lambda w: made.packed(w, is_symmetric=False),
        made.compressed("pack-quantized", strategy="group", group=G),
        Kind(algo=None, reason="it has zero points"),
        "compressed-tensors, pack-quantized, 4 bits in groups of 64",
    ),
    "compressed int8": (
        made.eight_bits,
        made.compressed("int-quantized", strategy="channel", bits=8),
        Kind(algo=None, reason="8-bit integers whose inputs are scaled when they come have no TensorRT-LLM layout"),
        "compressed-tensors, int-quantized, 8 bits",
    ),
    "compressed fp8 static": (
        lambda w: made.e4m3(w, inputs=0.02),
        made.compressed("float-quantized", strategy="tensor", **FLOAT8, inputs={"dynamic": False}),
        Kind(algo="FP8"),
        "compressed-tensors, float-quantized, 8 bits",
    ),
    "compressed fp8 rows": (
        lambda w: made.e4m3(w, by="row"),
        made.compressed("float-quantized", strategy="channel", **FLOAT8, inputs={"dynamic": True}),
        ROWS,
        "compressed-tensors, float-quantized, 8 bits",
    ),
    "fp8 blocks": (
        lambda w: made.e4m3(w, by="block", scale_name="weight_scale_inv"),
        BLOCKS,
        Kind(algo="FP8_BLOCK_SCALES"),
        "FP8 in blocks of 128 x 128",
    ),
    "fp8 other blocks": (
        lambda w: made.e4m3(w, by="block", scale_name="weight_scale_inv", block=48),
        {**BLOCKS, "weight_block_size": [48, 48]},
        Kind(algo=None, reason="its blocks are 48 x 48"),
        "FP8 in blocks of 48 x 48",
    ),
    "fp8 static": (lambda w: made.e4m3(w, inputs=0.02), PLAIN_FP8, Kind(algo="FP8"), "FP8"),
    "fp8 dynamic": (made.e4m3, {**PLAIN_FP8, "activation_scheme": "dynamic"}, ROWS, "FP8"),
}


def opened(folder) -> SourceModel:
    spec = models.read(models.locate(str(folder)))
    return SourceModel(Shards(folder), models.family_of(spec.architecture).tensors, spec)


@pytest.mark.parametrize("name", FORMATS)
def test_every_linear_is_the_number_that_was_packed(llama, tmp_path, name):
    pack, config, kind, title = FORMATS[name]
    meant = made.quantized_copy(llama[0], tmp_path / "hf", pack, config)

    source = opened(tmp_path / "hf")

    assert (source.reader.title, source.kind(0, "attention.q")) == (title, kind)
    for index in range(source.spec.num_layers):
        for part, linear in source.layer(index).linears.items():
            read, hf_name = quant.as_float(linear), f"model.layers.{index}.{tensor_name(source.names, part)}.weight"
            assert torch.equal(read.weight, meant[hf_name].float()), hf_name
            assert (linear.algo, source.in_float().layer(index).linears[part].algo) == (kind.algo, None)
    assert torch.equal(source.head().float(), meant["lm_head.weight"].float())


def test_a_quantized_head_is_read_in_float(llama, tmp_path):
    meant = made.quantized_copy(llama[0], tmp_path / "hf", made.gptq, made.GPTQ)
    stored, head = made.gptq(meant["lm_head.weight"].float())
    made.replace_tensors(tmp_path / "hf", "lm_head.", stored)

    assert torch.equal(opened(tmp_path / "hf").head(), head.float())


@pytest.mark.parametrize(
    ("form", "strategy", "bits", "kind", "size"),
    [
        ("pack-quantized", "group", 4, "int", G),
        ("pack-quantized", "channel", 4, "int", None),
        ("float-quantized", "channel", 8, "float", None),
        ("float-quantized", "tensor", 8, "float", None),
        ("int-quantized", "channel", 8, "int", None),
    ],
)
def test_compressed_tensors_itself_reads_the_same_numbers(llama, tmp_path, form, strategy, bits, kind, size):
    """Its own compressor packs; we must read what its own decompressor reads."""
    pytest.importorskip("compressed_tensors")
    from compressed_tensors.compressors import BaseCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

    args = QuantizationArgs(num_bits=bits, type=kind, strategy=strategy, group_size=size, symmetric=True)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)
    compressor = BaseCompressor.get_value_from_registry(form)

    def pack(weight):
        grouped = weight.view(weight.shape[0], -1, size or weight.shape[1])
        scale = grouped.abs().amax(-1) / {"int": 2 ** (bits - 1) - 1, "float": 448}[kind]
        scale = scale.amax().view(1) if strategy == "tensor" else scale
        zero = torch.zeros_like(scale, dtype=torch.int8)
        stored = compressor.compress({"weight": weight, "weight_scale": scale, "weight_zero_point": zero}, scheme)
        back = compressor.decompress(dict(stored), scheme)["weight"]
        return {name: tensor for name, tensor in stored.items() if name != "weight_zero_point"}, back.double()

    config = made.compressed(form, strategy=strategy, bits=bits, kind=kind, group=size)
    meant = made.quantized_copy(llama[0], tmp_path / "hf", pack, config)
    source = opened(tmp_path / "hf")

    for part, linear in source.in_float().layer(1).linears.items():
        name = f"model.layers.1.{tensor_name(source.names, part)}.weight"
        assert torch.equal(linear.weight, meant[name].float()), name
