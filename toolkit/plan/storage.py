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
FLOAT8_ALGOS = {"FP8", "FP8_PER_CHANNEL_PER_TOKEN", "NVFP4", "W4A8_AWQ"}
#: Algorithms whose checkpoints are described in DeepSeek's words, which are silent about the KV cache.
SILENT_ALGOS = {"FP8_BLOCK_SCALES"}


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
        shards.check(model, asked.sharding)
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


def kv_cache(recipe: QuantRecipe, asked: str, *, layout: str) -> tuple[str | None, Choice]:
    """Return how keys and values are cached, None for the model's dtype, and why."""
    if layout == HF and asked == INT8:
        raise PlanInfeasible(
            f"--kv-cache {INT8} is of the engine flow; who loads --format {HF} has no such cache.",
            hint=f"Try --kv-cache {FP8}.",
        )
    if recipe.quant_algo in SILENT_ALGOS and asked in {AUTO, FP8}:
        if asked == FP8:
            raise PlanInfeasible(
                f"The description of a {recipe.name} checkpoint has no place for a KV cache type.",
                hint="Leave --kv-cache out, and set the cache's type where the checkpoint is served.",
            )
        return None, Choice(name="kv_cache", value=NONE, reason="the format's description has no place for it")
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
