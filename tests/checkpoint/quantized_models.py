"""Small models quantized in the formats that people have, packed by the formats' own rules typed out here.

Each packer takes a float weight [N, K] and returns the tensors below a module's name and the float64 weight that they
stand for. Nothing of toolkit is used.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GROUP = 64


def int32_of(nibbles) -> torch.Tensor:
    """Pack lists of unsigned integers, lowest bits first, into signed 32-bit words."""
    bits = 32 // nibbles.shape[-1]
    words = torch.zeros(nibbles.shape[:-1], dtype=torch.int64)
    for place in range(nibbles.shape[-1]):
        words |= nibbles[..., place].long() << (bits * place)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)


def rounded(weight, *, group=GROUP, is_symmetric=True, bits=4):
    """Return unsigned integers [N, K], zero points and float16 scales [N, K/g], and the weight they stand for."""
    top = 2**bits - 1
    grouped = weight.double().view(weight.shape[0], -1, group)
    if is_symmetric:
        scales = (grouped.abs().amax(-1) / (top // 2)).half()
        zeros = torch.full(scales.shape, (top + 1) // 2)
    else:
        low, high = grouped.amin(-1), grouped.amax(-1)
        scales = ((high - low) / top).half()
        zeros = (-low / scales.double()).round().clamp(1, top).long()
    integers = (grouped / scales.double().unsqueeze(-1)).round() + zeros.unsqueeze(-1)
    integers = integers.clamp(0, top)
    meant = (integers - zeros.unsqueeze(-1)) * scales.double().unsqueeze(-1)
    return integers.view_as(weight).long(), zeros, scales, meant.view_as(weight)


def awq(weight, **how):
    """AutoAWQ gemm: eight columns n share a word, in the order 0 2 4 6 1 3 5 7."""
    integers, zeros, scales, meant = rounded(weight, **how)
    order = [0, 2, 4, 6, 1, 3, 5, 7]

    def words(matrix):  # [N, rows] -> [rows, N/8]
        return int32_of(matrix.T.reshape(matrix.shape[1], -1, 8)[:, :, order])

    return {"qweight": words(integers), "qzeros": words(zeros), "scales": scales.T.contiguous()}, meant


def gptq(weight, *, offset=1, order=None, bits=4, **how):
    """GPTQ: a word holds neighbouring k of a column n, zero points neighbouring n; version 1 stores them less one."""
    integers, zeros, scales, meant = rounded(weight, bits=bits, **how)
    many = 32 // bits
    rows, columns = weight.shape
    qweight = int32_of(integers.T.reshape(columns // many, many, rows).transpose(1, 2))
    qzeros = int32_of((zeros.T - offset).reshape(zeros.shape[1], rows // many, many))
    index = torch.arange(columns) // (columns // zeros.shape[1]) if order is None else order
    stored = {"qweight": qweight, "qzeros": qzeros, "scales": scales.T.contiguous(), "g_idx": index.int()}
    return stored, meant


def packed(weight, *, is_symmetric=True, bits=4, **how):
    """compressed-tensors: a word holds neighbouring k of a row, zero points neighbouring rows of a group."""
    integers, zeros, scales, meant = rounded(weight, is_symmetric=is_symmetric, bits=bits, **how)
    many = 32 // bits
    stored = {
        "weight_packed": int32_of(integers.reshape(weight.shape[0], -1, many)),
        "weight_scale": scales.bfloat16() if how.get("group") == weight.shape[1] else scales,
        "weight_shape": torch.tensor(weight.shape),
    }
    if how.get("group") == weight.shape[1]:  # bfloat16 keeps fewer bits
        meant = (integers - zeros) * stored["weight_scale"].double()
    if not is_symmetric:
        stored["weight_zero_point"] = int32_of(zeros.T.reshape(zeros.shape[1], -1, many)).T.contiguous()
    return stored, meant


def eight_bits(weight):
    """compressed-tensors int-quantized: signed bytes under a scale per row."""
    scales = (weight.double().abs().amax(1, keepdim=True) / 127).float()
    integers = (weight.double() / scales.double()).round()
    return {"weight": integers.to(torch.int8), "weight_scale": scales}, integers * scales.double()


def e4m3(weight, *, by="tensor", scale_name="weight_scale", inputs=None, block=128):
    """E4M3 under one scale, a scale per row, or a scale per square block; the last row and column may be cut."""
    if by == "block":
        blocks = [
            [weight[i : i + block, j : j + block].abs().max() for j in range(0, weight.shape[1], block)]
            for i in range(0, weight.shape[0], block)
        ]
        stored_scale = torch.tensor(blocks) / 448
        scale = stored_scale.repeat_interleave(block, 0)[: weight.shape[0]]
        scale = scale.repeat_interleave(block, 1)[:, : weight.shape[1]]
    else:
        scale = weight.abs().amax(1, keepdim=True) / 448 if by == "row" else (weight.abs().max() / 448).view(1)
        stored_scale = scale
    stored = (weight / scale).to(torch.float8_e4m3fn)
    tensors = {"weight": stored, scale_name: stored_scale.float()}
    if inputs is not None:
        tensors["input_scale"] = torch.tensor([inputs])
    return tensors, stored.double() * scale.double()


def quantized_copy(source: Path, target: Path, pack, config) -> dict[str, torch.Tensor]:
    """Copy a model with its linears packed by PACK; return its state dict with the float64 weights that are meant."""
    shutil.copytree(source, target)
    tensors = load_file(source / "model.safetensors")
    meant = {name: tensor.double() for name, tensor in tensors.items()}
    for name in [name for name in tensors if name.split(".")[-2] in LINEARS and name.endswith("weight")]:
        stored, meant[name] = pack(tensors.pop(name).float())
        tensors |= {f"{name.removesuffix('weight')}{suffix}": tensor for suffix, tensor in stored.items()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, target / "model.safetensors")
    set_config(target, quantization_config=config)
    return meant


def set_config(folder: Path, **changes) -> None:
    """Change fields of a folder's config.json."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


AWQ = {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm", "zero_point": True}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": GROUP, "desc_act": False, "sym": True}


def compressed(form, *, strategy, bits=4, kind="int", group=None, inputs=None):
    """Return a compressed-tensors quantization_config."""
    weights = {"num_bits": bits, "type": kind, "symmetric": True, "strategy": strategy, "group_size": group}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}}
    return {"quant_method": "compressed-tensors", "format": form, "config_groups": groups, "ignore": ["lm_head"]}


def replace_tensors(folder: Path, prefix: str, stored: dict[str, torch.Tensor]) -> None:
    """Replace every tensor of a model whose name begins with PREFIX."""
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
    new = {f"{prefix}{name}": tensor.contiguous() for name, tensor in stored.items()}
    save_file({**kept, **new}, folder / "model.safetensors")
