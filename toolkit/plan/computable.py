"""What a model does that a flow cannot: refused before anything is fetched or compiled."""

from __future__ import annotations

from toolkit.specs import HybridModelSpec, LatentModelSpec, ModelSpec, QuantRecipe

#: Architectures whose NVFP4 the engine's own precision table lists.
NVFP4_ENGINES = {"LlamaForCausalLM", "MistralForCausalLM", "MixtralForCausalLM"}


def fault(model: ModelSpec, recipe: QuantRecipe, flow: str) -> str | None:
    """Return what a flow cannot do for a model, as words after `it`; None where nothing is known against it."""
    if isinstance(model, (LatentModelSpec, HybridModelSpec)) and flow != "llmapi":
        what = "latent attention" if isinstance(model, LatentModelSpec) else "layers with a state"
        return f"has {what}, which trtk plans for the LLM API alone"
    return {"engine": _engine_fault, "llmapi": _llm_api_fault, "openvino": _openvino_fault}[flow](model, recipe)


def _openvino_fault(model: ModelSpec, recipe: QuantRecipe) -> str | None:  # noqa: ARG001 - one signature for all
    if model.attention_softcap is not None:
        return f"caps attention scores at {model.attention_softcap:g}, and OpenVINO's paged attention has no such cap"
    return None


def _llm_api_fault(model: ModelSpec, recipe: QuantRecipe) -> str | None:
    if model.is_text_part:
        return "also sees, and trtk converts its language model alone: its checkpoint would lack the vision tower"
    if "hf" not in recipe.layouts:
        return f"would need {recipe.name} in a unified Hugging Face checkpoint, which has no such format"
    return None


def _engine_fault(model: ModelSpec, recipe: QuantRecipe) -> str | None:
    if recipe.quant_algo == "NVFP4" and model.architecture not in NVFP4_ENGINES:
        return "is not one of the architectures that TensorRT-LLM lists NVFP4 engines for: Llama, Mistral and Mixtral"
    if "trtllm" not in recipe.layouts:
        return f"would need {recipe.name} in a TensorRT-LLM checkpoint, which has no such format"
    return _rope_fault(model)


def _rope_fault(model: ModelSpec) -> str | None:
    """Return a rope that TensorRT-LLM's builder would replace by another without a word."""
    scaling = model.rope_scaling or {}
    rope_type = scaling.get("rope_type")
    if scaling and model.rope_local_theta:
        return f"scales {rope_type} rope in its global layers alone, and the builder scales sliding layers with them"
    if rope_type == "longrope" and model.architecture != "Phi3ForCausalLM":
        return "has longrope, which the builder knows for Phi-3 alone"
    if rope_type == "yarn" and not scaling.get("truncate", True):
        return "has yarn without truncation, and the builder always truncates"
    return None
