"""How a unified Hugging Face checkpoint says what is quantized: config.json and hf_quant_config.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import __version__
from toolkit.checkpoint.assignment import Assignment
from toolkit.checkpoint.trtllm_quantization import entry
from toolkit.models import family_of, parts
from toolkit.models.parts import small_names, tensors_of
from toolkit.specs import MIXED_PRECISION, ConversionPlan, QuantRecipe

BLOCK_FP8 = "FP8_BLOCK_SCALES"
#: compressed-tensors' words for the formats whose flat description has groups; targets are added.
FLOAT8 = {"dynamic": False, "num_bits": 8, "type": "float"}
FLOAT4 = {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16}
INT4 = {"dynamic": False, "num_bits": 4, "type": "int"}
SCHEMES: dict[str, dict[str, dict[str, Any]]] = {
    "FP8": {"input_activations": FLOAT8, "weights": FLOAT8},
    "FP8_PER_CHANNEL_PER_TOKEN": {
        "input_activations": {**FLOAT8, "dynamic": True, "strategy": "token"},
        "weights": {**FLOAT8, "strategy": "channel"},
    },
    "NVFP4": {"input_activations": FLOAT4, "weights": FLOAT4},
    "W4A16_AWQ": {"weights": INT4},
    "W4A8_AWQ": {"input_activations": FLOAT8, "weights": INT4},
    "W8A16": {"weights": {"dynamic": False, "num_bits": 8, "type": "int", "strategy": "channel"}},
    "W8A8_SQ_PER_CHANNEL": {
        "input_activations": {"dynamic": False, "num_bits": 8, "type": "int"},
        "weights": {"dynamic": False, "num_bits": 8, "type": "int", "strategy": "channel"},
    },
}
#: Formats of a whole checkpoint that ModelOpt describes in groups.
GROUPED = {"FP8", "NVFP4"}
PRODUCER = {"name": "trtk", "version": __version__}
#: What a quantized source says of itself.
OF_THE_SOURCE = ("quantization_config", "compression_config")


def documents(plan: ConversionPlan, assignment: Assignment, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the JSON files that describe a checkpoint of the model in FOLDER, config.json last."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for key in OF_THE_SOURCE:
        config.pop(key, None)
    config["torch_dtype" if "torch_dtype" in config else "dtype"] = plan.dtype
    algos = assignment.algos - {None}
    if algos == {BLOCK_FP8}:
        return {"config.json": {**config, "quantization_config": _block_fp8(plan, assignment)}}
    if not algos and not plan.kv_cache:
        return {"config.json": config}
    nested = _nested(plan, assignment)
    return {
        "hf_quant_config.json": {"producer": PRODUCER, "quantization": nested},
        "config.json": {**config, "quantization_config": _flat(nested)},
    }


def _nested(plan: ConversionPlan, assignment: Assignment) -> dict[str, Any]:
    """Return hf_quant_config.json's `quantization`: the form that every TensorRT-LLM reads."""
    used = [recipe for recipe in assignment.of.values() if recipe and recipe.quant_algo]
    kv_cache = {"kv_cache_quant_algo": plan.kv_cache.upper() if plan.kv_cache else None}
    if assignment.is_mixed:
        recipes = _by_module(plan, assignment)
        layers = {name: entry(plan, recipe) for name, recipe in recipes.items() if recipe and recipe.quant_algo}
        return {
            "quant_algo": MIXED_PRECISION,
            **kv_cache,
            "quantized_layers": layers,
            "exclude_modules": _kept(plan, assignment),
        }
    described = entry(plan, used[0]) if used else {"quant_algo": None}
    return {**described, **kv_cache, "exclude_modules": _kept(plan, assignment)}


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Return config.json's `quantization_config`: the form that transformers, vLLM and SGLang look for."""
    algo = nested["quant_algo"]
    found: dict[str, Any] = {"ignore": nested["exclude_modules"], "producer": PRODUCER, "quant_method": "modelopt"}
    if algo:
        found["quant_algo"] = algo
    if algo in GROUPED:
        found["config_groups"] = {"group_0": {**SCHEMES[algo], "targets": ["Linear"]}}
    if algo == MIXED_PRECISION:
        found["quantized_layers"] = nested["quantized_layers"]
        found["config_groups"] = _groups(nested["quantized_layers"])
    if nested["kv_cache_quant_algo"] == "FP8":
        found["kv_cache_scheme"] = FLOAT8
    return found


def _groups(layers: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the modules of each format."""
    targets: dict[tuple[str, int | None], list[str]] = {}
    for name, described in layers.items():
        targets.setdefault((described["quant_algo"], described.get("group_size")), []).append(name)
    groups = {}
    for number, ((algo, size), names) in enumerate(sorted(targets.items(), key=str)):
        scheme = {kind: dict(words) for kind, words in SCHEMES[algo].items()}
        if size:
            scheme["weights"]["group_size"] = size
        groups[f"group_{number}"] = {**scheme, "targets": sorted(names)}
    return groups


def _block_fp8(plan: ConversionPlan, assignment: Assignment) -> dict[str, Any]:
    """Return the description of block FP8 that DeepSeek's checkpoints have, which all servers read."""
    return {
        "quant_method": "fp8",
        "fmt": "e4m3",
        "activation_scheme": "dynamic",
        "weight_block_size": [128, 128],
        "modules_to_not_convert": _kept(plan, assignment),
    }


def _by_module(plan: ConversionPlan, assignment: Assignment) -> dict[str, QuantRecipe | None]:
    """Return the recipe of each Hugging Face linear."""
    names, spec = family_of(plan.model.architecture).tensors, plan.model
    found: dict[str, QuantRecipe | None] = {}
    for layer in range(spec.num_layers):
        group_of = {part: group for group, members in parts.groups(spec, layer).items() for part in members}
        prefix = names.layer.format(index=layer)
        for name, members in tensors_of(spec, names, layer).items():
            found[f"{prefix}{name}"] = assignment.of[layer, group_of[members[0]]]
    return found


def _kept(plan: ConversionPlan, assignment: Assignment) -> list[str]:
    """Return the modules that stay in 16 bits, routers above all: a loader fails on the shape of an unlisted one."""
    names, spec = family_of(plan.model.architecture).tensors, plan.model
    found = {names.lm_head, names.embedding}
    recipes = _by_module(plan, assignment)
    found |= {name for name, recipe in recipes.items() if recipe is None or recipe.quant_algo is None}
    for layer in range(spec.num_layers):
        small = small_names(spec, names, layer)
        prefix = names.layer.format(index=layer)
        found |= {f"{prefix}{name}" for module, name in small.items() if module not in names.norms}
    return sorted(found)
