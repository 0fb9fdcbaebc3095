"""NVIDIA ModelOpt exports the same names, types and shapes, and where bytes are defined, the same bytes."""

import json
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

import pytest
import torch
from safetensors.torch import load_file

from tests.convert.checkpoints import convert_model
from tests.parity import modelopt_exports as peer
from toolkit.specs import Sharding

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
CASES = [(family, recipe) for family in peer.FAMILIES for recipe in peer.RECIPES]
#: What ModelOpt 0.47 cannot export, or exports broken.
CANNOT = {
    ("mixtral", "int8_sq", "trtllm"): "it concatenates the [E, N] scales of w3 and w1 along the experts",
    ("mixtral", "fp8_rowwise", "trtllm"): "it concatenates the [E, N] scales of w3 and w1 along the experts",
    ("mixtral", "fp16", "hf"): "it does not know transformers' stacked experts when they are not quantized",
    ("mixtral", "int4", "hf"): "it cannot count transformers' stacked experts",
    ("mixtral", "w4a8_awq", "hf"): "it cannot count transformers' stacked experts",
    ("mixtral", "int8_sq", "hf"): "it smooths no stacked experts, and writes int8 weights without input factors",
}
#: Recipes whose weights and weight scales follow from the weights alone.
DEFINED = {"fp16", "fp8", "fp8_rowwise"}
HALF = torch.float16


@dataclass(frozen=True)
class Case:
    """A model that ModelOpt quantized; exports are made when a test asks."""

    family: str
    recipe: str
    folder: Path
    work: Path

    @cached_property
    def model(self):
        """ModelOpt's model, with experts in the form that its TensorRT-LLM export takes."""
        return peer.quantized(self.folder, self.family, self.recipe, are_experts_listed=True)

    def theirs(self, tp: int) -> Path:
        """ModelOpt's TensorRT-LLM checkpoint."""
        peer.export_trtllm(self.model, self.family, self.work / f"theirs-tp{tp}", tp=tp)
        return self.work / f"theirs-tp{tp}"

    def theirs_hf(self) -> Path:
        """ModelOpt's unified checkpoint."""
        model = peer.quantized(self.folder, self.family, self.recipe) if self.family == "mixtral" else self.model
        peer.export_hf(model, self.work / "theirs-hf")
        return self.work / "theirs-hf"

    def ours(self, name: str, **options) -> Path:
        """Our checkpoint."""
        convert_model(self.folder, self.work / name, self.recipe, **options)
        return self.work / name


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A small model of each family."""
    made = {family: tmp_path_factory.mktemp("hf") for family in peer.FAMILIES}
    for family, folder in made.items():
        peer.save_family(folder, family)
    return made


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def case(request, folders, tmp_path_factory):
    """One family under one recipe, quantized once for all its exports."""
    family, recipe = request.param
    return Case(family, recipe, folders[family], tmp_path_factory.mktemp("exports"))


def skip_what_modelopt_cannot(case, layout):
    if reason := CANNOT.get((case.family, case.recipe, layout)):
        pytest.skip(f"ModelOpt: {reason}")


def described(tensors):
    return {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}


def bytes_of(tensor):
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def is_defined(name, recipe):
    """Whether a tensor's bytes follow from the weights: no calibration, no search."""
    return recipe == "fp16" or ("norm" in name or "embed" in name or "lm_head" in name or "router" in name)


@pytest.mark.parametrize("tp", [1, 2])
def test_ranks_hold_what_modelopts_hold(case, tp):
    skip_what_modelopt_cannot(case, "trtllm")
    theirs, ours = case.theirs(tp), case.ours(f"ours-tp{tp}", sharding=Sharding(tp=tp))

    for rank in range(tp):
        expected, found = (load_file(folder / f"rank{rank}.safetensors") for folder in (theirs, ours))
        assert described(found) == described(expected)
        for name, tensor in expected.items():
            weights = case.recipe in DEFINED and "activation" not in name and ".fc." not in name
            if weights or is_defined(name, case.recipe):
                assert bytes_of(found[name]) == bytes_of(tensor), name
    check_config(json.loads((ours / "config.json").read_text()), json.loads((theirs / "config.json").read_text()))


#: Keys of ModelOpt's config.json that TensorRT-LLM's PretrainedConfig does not know.
INFORMATIONAL = {"producer", "bias", "rotary_pct", "rank", "decoder", "rmsnorm", "lm_head_bias", "residual_mlp"}
#: Where we differ on purpose, docs/decisions/0009 and 0012: key → ours, from theirs.
DIFFERENT = MappingProxyType(
    {
        "logits_dtype": lambda _: "float32",
        "use_parallel_embedding": lambda theirs: theirs["mapping"]["tp_size"] > 1,
        "share_embedding_table": lambda _: None,
    }
)


def check_config(ours, theirs):
    """Compare what every key of ModelOpt's config.json means."""
    quantization, mapping = theirs.pop("quantization"), theirs.pop("mapping")
    for key in theirs.keys() - INFORMATIONAL:
        expected = DIFFERENT[key]({"mapping": mapping}) if key in DIFFERENT else theirs[key]
        assert (key, ours.get(key)) == (key, expected)
    excluded = quantization.pop("exclude_modules", [])
    patterns = ours["quantization"].pop("exclude_modules", [])
    assert ours["quantization"] == quantization
    assert all(any(fnmatchcase(module, pattern) for pattern in patterns) for module in excluded)
    assert mapping.items() <= ours["mapping"].items()


def test_unified_checkpoints_hold_what_modelopts_hold(case):
    skip_what_modelopt_cannot(case, "hf")
    theirs, ours = case.theirs_hf(), case.ours("ours-hf", layout="hf")

    expected, found = (load_file(folder / "model.safetensors") for folder in (theirs, ours))

    # ModelOpt leaves the floats of a float32 model in float32, where --dtype says what ours are.
    assert described(found) == described({name: as_half(name, tensor) for name, tensor in expected.items()})
    folded = "layernorm" in name_of_folded(case.recipe)
    for name, tensor in expected.items():
        if is_defined(name, case.recipe) and not (folded and name.endswith("layernorm.weight")):
            assert torch.equal(found[name], tensor.to(found[name].dtype)), name
    check_hf_configs(ours, theirs, case.folder)


def name_of_folded(recipe):
    return "layernorm" if recipe in {"int4", "w4a8_awq"} else ""


def as_half(name, tensor):
    is_scale = name.endswith(("weight_scale", "weight_scale_2", "input_scale", "k_scale", "v_scale"))
    return tensor.to(HALF) if tensor.dtype == torch.float32 and not is_scale else tensor


def check_hf_configs(ours, theirs, folder):
    """Compare how two unified checkpoints say that they are quantized, and that the rest is the source's."""
    configs = [json.loads((each / "config.json").read_text()) for each in (ours, theirs, folder)]
    inline = [config.pop("quantization_config", None) for config in configs]
    nested = [
        json.loads(path.read_text()) if (path := each / "hf_quant_config.json").is_file() else None
        for each in (ours, theirs)
    ]
    for document in filter(None, [*inline, *nested]):
        document.pop("producer")
    assert inline[0] == inline[1]
    assert nested[0] == nested[1]
    assert configs[0] == {**configs[2], "dtype": "float16"}


def test_an_fp8_kv_cache_is_said_in_the_same_words(folders, tmp_path):
    """Of three scales in ModelOpt's file TensorRT-LLM keeps the largest under the one name that ours has."""
    model = peer.quantized(folders["llama"], "llama", "fp8", is_kv_cached=True)
    peer.export_trtllm(model, "llama", tmp_path / "theirs", tp=1)
    peer.export_hf(model, tmp_path / "theirs-hf")
    convert_model(folders["llama"], tmp_path / "ours", "fp8", kv_cache="fp8")
    convert_model(folders["llama"], tmp_path / "ours-hf", "fp8", kv_cache="fp8", layout="hf")

    theirs, ours = (load_file(tmp_path / name / "rank0.safetensors") for name in ("theirs", "ours"))
    both = {name: tensor for name, tensor in theirs.items() if ".k_cache" not in name and ".v_cache" not in name}
    assert described(ours) == described(both)
    scale = "transformer.layers.0.attention.kv_cache_scaling_factor"
    assert ours[scale].tolist() == theirs[scale].tolist() == [1.0]
    check_config(*(json.loads((tmp_path / name / "config.json").read_text()) for name in ("ours", "theirs")))

    theirs, ours = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs-hf", "ours-hf"))
    assert described(ours) == described({name: as_half(name, tensor) for name, tensor in theirs.items()})
    check_hf_configs(tmp_path / "ours-hf", tmp_path / "theirs-hf", folders["llama"])
