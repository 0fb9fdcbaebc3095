"""The ranks of a checkpoint put together are the checkpoint of one rank, bit for bit, in every format."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import save_model
from tests.convert.checkpoints import convert_model, int4_values
from toolkit.specs import Sharding

pytestmark = pytest.mark.usefixtures("one_thread")
#: 128-wide groups fit into the inputs of two ranks; neither 2 nor 4 divides the vocabulary, nor 2 the layers.
SHAPE = {"hidden_size": 256, "intermediate_size": 512, "head_dim": 64, "vocab_size": 323, "num_hidden_layers": 3}
MODELS = {
    "llama": ("LlamaForCausalLM", {"attention_bias": True, "mlp_bias": True}),
    "mixtral": ("MixtralForCausalLM", {}),
    "qwen2-moe": ("Qwen2MoeForCausalLM", {"moe_intermediate_size": 256, "shared_expert_intermediate_size": 512}),
    "phi3": ("Phi3ForCausalLM", {}),
}
RECIPES = {
    "fp16": {},
    "int8": {},
    "int8_sq": {},
    "int4_rtn": {"group_size": 32},
    "w4a8_awq": {},
    "fp8": {},
    "fp8_rowwise": {},
    "nvfp4": {},
}
SHARDINGS = {
    "llama": [{"tp": 4}, {"tp": 2, "pp": 2}],  # 4 ranks share 2 KV heads in pairs
    "mixtral": [{"tp": 2, "ep": 2}, {"tp": 4, "ep": 2}],
    "qwen2-moe": [{"tp": 2}],
    "phi3": [{"tp": 2}],
}
CASES = [
    (name, recipe, sharding)
    for name, shardings in SHARDINGS.items()
    for sharding in shardings
    for recipe in RECIPES
    if not (recipe == "w4a8_awq" and sharding.get("tp") == 4)  # its groups of 128 do not fit
    and (name == "llama" or recipe in {"fp16", "int8_sq", "int4_rtn", "w4a8_awq", "fp8", "nvfp4"})
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}
    for name, (architecture, changes) in MODELS.items():
        made[name] = tmp_path_factory.mktemp("hf")
        save_model(made[name], architecture=architecture, **{**SHAPE, **changes})
    return made


@pytest.fixture(scope="module")
def of_one_rank(folders, tmp_path_factory):
    """Return the tensors and spec of the whole checkpoint, converted once."""
    known = {}

    def converted(name, recipe):
        if (name, recipe) not in known:
            target = tmp_path_factory.mktemp("whole") / "out"
            spec = convert_model(folders[name], target, recipe, kv_cache="fp8", **RECIPES[recipe])
            known[name, recipe] = (spec, load_file(target / "rank0.safetensors"))
        return known[name, recipe]

    return converted


def title(case):
    name, recipe, sharding = case
    return f"{name}-{recipe}-" + "-".join(f"{key}{value}" for key, value in sharding.items())


@pytest.mark.parametrize("case", CASES, ids=title)
def test_ranks_put_together_are_the_whole(case, folders, of_one_rank, tmp_path):
    name, recipe, asked = case
    sharding = Sharding(**asked)
    spec, whole = of_one_rank(name, recipe)

    convert_model(folders[name], tmp_path / "out", recipe, sharding=sharding, kv_cache="fp8", **RECIPES[recipe])

    world = sharding.tp * sharding.pp
    ranks = [unpacked(load_file(tmp_path / f"out/rank{rank}.safetensors")) for rank in range(world)]
    together = {}
    for stage, first in enumerate(first_layers(spec.num_layers, sharding.pp)):
        members = ranks[stage * sharding.tp : (stage + 1) * sharding.tp]
        assert all(rank.keys() == members[0].keys() for rank in members)
        for key in members[0]:
            together[renumbered(key, first)] = joined(key, [rank[key] for rank in members], spec, sharding.ep)
    expected = {key: tensor if tensor.dim() else tensor.reshape(1) for key, tensor in unpacked(whole).items()}
    assert {key: as_bytes(tensor) for key, tensor in together.items()} == {
        key: as_bytes(tensor) for key, tensor in expected.items()
    }
    mapping = json.loads((tmp_path / "out/config.json").read_text())["mapping"]
    assert (mapping["world_size"], mapping["tp_size"], mapping["pp_size"]) == (world, sharding.tp, sharding.pp)
    if spec.moe:
        assert (mapping["moe_tp_size"], mapping["moe_ep_size"]) == (sharding.tp // sharding.ep, sharding.ep)


def as_bytes(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def first_layers(layers, pp):
    """Return the first layer of each stage: torch.tensor_split's rule."""
    return [int(part[0]) for part in torch.arange(layers).tensor_split(pp)]


def renumbered(key, first):
    """Return a name with the layer's number in the whole model."""
    return re.sub(r"layers\.(\d+)", lambda match: f"layers.{int(match[1]) + first}", key)


def unpacked(tensors):
    """Return a rank's tensors with the two rows of a byte apart: int8 under grouped scales is pairs of 4-bit rows."""
    found = dict(tensors)
    for key, weight in tensors.items():
        scale = tensors.get(key.removesuffix("weight") + "weights_scaling_factor")
        if weight.dtype == torch.int8 and scale is not None and scale.dim() == weight.dim():
            experts = weight if weight.dim() == 3 else weight.unsqueeze(0)
            rows = torch.stack([int4_values(expert) for expert in experts])
            found[key] = rows if weight.dim() == 3 else rows[0]
    return found


def joined(key, pieces, spec, ep):
    """Put a tensor of one stage's ranks together, by the format's rules typed out here."""
    module, _, field = key.rpartition(".")
    part = module.rpartition(".")[2]
    if part in {"vocab_embedding", "lm_head"}:
        whole = torch.cat(pieces)
        assert not whole[spec.vocab_size :].any()
        return whole[: spec.vocab_size]
    if spec.moe is None or not module.endswith((".mlp.fc", ".mlp.proj")) or field == "activation_scaling_factor":
        return of_linear(part, field, pieces, local_rows(module, part, spec, len(pieces)))
    experts = []
    for owner in range(ep):  # of the ranks that hold the same experts, each has a slice
        slices = pieces[owner::ep]
        halves = [1, 1] if part == "fc" else [1]
        experts += [of_linear(part, field, [piece[i] for piece in slices], halves) for i in range(len(slices[0]))]
    return together_in(torch.stack, experts)


def local_rows(module, part, spec, tp):
    """Return in what proportions the rows of a rank belong to the linears that are fused in it."""
    if part == "qkv":
        return [spec.num_heads // tp, max(1, spec.num_kv_heads // tp), max(1, spec.num_kv_heads // tp)]
    is_fused = part == "fc" and (spec.is_mlp_fused or module.endswith("shared_expert.fc"))
    return [1, 1] if is_fused else [1]


def of_linear(part, field, pieces, blocks):
    """Join the pieces of one linear: columns of row-parallel ones, rows of each fused block of the others."""
    is_cut = field != "prequant_scaling_factor" and pieces[0].numel() > 1
    if part in {"dense", "proj"}:
        if field == "weight" or (field == "weights_scaling_factor" and pieces[0].dim() == 2):
            return together_in(torch.cat, pieces, dim=1)
        return torch.cat(pieces) if field == "prequant_scaling_factor" else same(pieces)
    if part not in {"qkv", "fc", "gate"} or not is_cut:
        return same(pieces)
    unit = pieces[0].shape[0] // sum(blocks)
    cut = [viewed(piece).split([unit * share for share in blocks]) for piece in pieces]
    of_blocks = [list(block) for block in zip(*cut, strict=True)]
    if part == "qkv" and len(pieces) == 4:  # of ranks that share a KV head, both have it whole
        for number in (1, 2):
            assert all(torch.equal(*of_blocks[number][pair : pair + 2]) for pair in (0, 2))
            of_blocks[number] = of_blocks[number][::2]
    return torch.cat([torch.cat(block) for block in of_blocks]).view(pieces[0].dtype)


def viewed(tensor):
    """Return E4M3 as bytes: torch joins no such tensors."""
    return tensor.view(torch.uint8) if tensor.dtype == torch.float8_e4m3fn else tensor


def together_in(join, pieces, **options):
    return join([viewed(piece) for piece in pieces], **options).view(pieces[0].dtype)


def same(pieces):
    """Return what all ranks must hold alike."""
    assert all(as_bytes(piece) == as_bytes(pieces[0]) for piece in pieces)
    return pieces[0]
