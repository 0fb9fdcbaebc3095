"""How a checkpoint is to be stored: layout, ranks, KV cache, and what stays in 16 bits."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.errors import PlanInfeasible
from toolkit.plan import shards
from toolkit.specs import Choice, ModelSpec, QuantRecipe, Sharding

TRTLLM, HF = "trtllm", "hf"
AUTO, NONE, FP8, INT8 = "auto", "none", "fp8", "int8"
#: Of what is not quantized, when neither the user nor the recipe says.
DTYPE = "float16"
#: Algorithms that TensorRT-LLM's PyTorch backend has no loader for; ModelOpt writes them all the same.
NO_KNOWN_HF_LOADER = {"W8A8_SQ_PER_CHANNEL"}
FLOAT8_ALGOS = {"FP8", "FP8_PER_CHANNEL_PER_TOKEN", "FP8_BLOCK_SCALES", "NVFP4", "W4A8_AWQ"}


@dataclass(frozen=True, kw_only=True)
class AskedCheckpoint:
    """What the user set about a checkpoint; None and `auto` leave it to the plan."""

    group_size: int | None = None
    dtype: str | None = None
    device: str = "cpu"
    layout: str = TRTLLM
    sharding: Sharding = field(default_factory=Sharding)
    kv_cache: str = AUTO
    exclude: tuple[str, ...] = ()


def check(model: ModelSpec, recipe: QuantRecipe, asked: AskedCheckpoint) -> tuple[Choice, ...]:
    """Raise PlanInfeasible when a layout or a division among ranks cannot be; return what is worth saying."""
    if asked.layout == TRTLLM:
        if TRTLLM not in recipe.layouts:
            raise PlanInfeasible(
                f"{recipe.name} exists in the unified Hugging Face layout only; --format {TRTLLM} cannot hold it.",
                hint=f"Try --format {HF}.",
            )
        shards.check(model, recipe, asked.sharding)
        return ()
    if asked.sharding != Sharding():
        raise PlanInfeasible(
            "A unified Hugging Face checkpoint is whole and is divided when it is loaded, so --tp, --pp and --ep "
            f"cannot be meant with --format {HF}.",
            hint="Leave them out, and give tensor_parallel_size to the server.",
        )
    if model.is_text_part:
        raise PlanInfeasible(
            f"{model.architecture} also sees, and trtk converts its language model alone: --format {HF} would lack the "
            "vision tower that the config names.",
            hint=f"Try --format {TRTLLM}, which holds the language model.",
        )
    shards.check_blocks(model, recipe)
    if recipe.quant_algo in NO_KNOWN_HF_LOADER:
        reason = f"as ModelOpt writes it; no loader of {recipe.quant_algo} in this layout is known"
        return (Choice(name="format", value=HF, reason=reason),)
    return ()


def dtype(recipe: QuantRecipe, asked: str | None) -> str:
    """Return the dtype of what is not quantized; raises PlanInfeasible when the recipe has another than the asked."""
    if asked and recipe.dtype and asked != recipe.dtype:
        raise PlanInfeasible(
            f"{recipe.name} means {recipe.dtype}, so --dtype {asked} cannot be meant.", hint="Leave --dtype out."
        )
    return asked or recipe.dtype or DTYPE


def kv_cache(recipe: QuantRecipe, asked: str) -> tuple[str | None, Choice]:
    """Return how keys and values are cached, None for the model's dtype, and why."""
    if asked != AUTO:
        chosen = None if asked == NONE else asked
        return chosen, Choice(name="kv_cache", value=asked, reason="as asked")
    if recipe.quant_algo in FLOAT8_ALGOS:
        # ModelOpt's hf_ptq and NVIDIA's published FP8 and NVFP4 checkpoints do the same.
        reason = "what runs 8-bit floats caches them too; twice the tokens fit"
        return FP8, Choice(name="kv_cache", value=FP8, reason=reason)
    reason = "keys and values stay in 16 bits unless --kv-cache says otherwise"
    return None, Choice(name="kv_cache", value=NONE, reason=reason)


def needs_calibration(recipe: QuantRecipe, kv_cache_algo: str | None) -> bool:
    """Return whether calibration text is read: for the recipe, or for the scales of an int8 KV cache."""
    return recipe.needs_calibration or kv_cache_algo == INT8
