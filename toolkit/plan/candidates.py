"""One copy of a model on the fewest cards that are asked for: what it holds, and what a prediction is made of."""

from __future__ import annotations

from dataclasses import dataclass, replace

from toolkit.errors import PlanInfeasible
from toolkit.plan import groups, kv_cache, limits, shards, storage, support
from toolkit.plan.limits import Asked, Loaded
from toolkit.plan.support import Target
from toolkit.specs import (
    ConversionPlan,
    ModelSpec,
    PriceOffer,
    QuantRecipe,
    ServerSetup,
    Sharding,
    Sizing,
)


@dataclass(frozen=True, kw_only=True)
class Bought:
    """What a card costs in the currency of the plan."""

    per_gpu_hour: float
    currency: str
    offer: PriceOffer | None = None


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model in a format on cards that it fits on."""

    recipe: QuantRecipe
    flow: str
    sharding: Sharding
    kv_type: str | None  # fp8, int8; None: 16 bits
    loaded: Loaded
    sizing: Sizing
    setup: ServerSetup

    @property
    def gpus(self) -> int:
        """Cards of one copy."""
        return self.sharding.tp * self.sharding.pp


def candidate(
    model: ModelSpec,
    target: Target,
    recipe: QuantRecipe,
    *,
    sharding: Sharding,
    asked: Asked,
    kv_asked: str = storage.AUTO,
) -> Candidate:
    """Return what a model is on a card; raises PlanInfeasible with the reason."""
    if asked.speculation and target.gpu.is_cpu:
        raise PlanInfeasible("The CPU engine does not speculate.", hint="Leave --speculation out.")
    target = support.resolve(target, recipe, recipes=(recipe,), model=model)
    loaded, kv_type = loaded_as(model, target, recipe, sharding=sharding, kv_asked=kv_asked)
    if asked.weights_bytes is not None:
        loaded = replace(loaded, weights_bytes=asked.weights_bytes)
    sizing = limits.choose(loaded, replace(asked, sharding=sharding))
    setup = ServerSetup(
        model=model,
        gpu=target.gpu,
        recipe=recipe,
        limits=sizing.limits,
        kv_capacity_tokens=_capacity(loaded, sizing),
        kv_element_bytes=kv_cache.BYTES_BY_TYPE[kv_type],
        tensorrt_llm="" if target.gpu.is_cpu else target.release.tensorrt_llm,
        engine=support.TOOLCHAINS[target.flow],
        speculation=asked.speculation,
    )
    return Candidate(
        recipe=recipe,
        flow=target.flow,
        sharding=sharding,
        kv_type=kv_type,
        loaded=loaded,
        sizing=sizing,
        setup=setup,
    )


def loaded_as(
    model: ModelSpec, target: Target, recipe: QuantRecipe, *, sharding: Sharding, kv_asked: str = storage.AUTO
) -> tuple[Loaded, str | None]:
    """Return what the fullest rank holds, and how it caches; TARGET's flow is decided."""
    if sharding != Sharding():
        if target.gpu.is_cpu:
            raise PlanInfeasible("--tp, --pp and --ep divide a model among NVIDIA GPUs; the CPU engine is one.")
        shards.check(model, sharding)
    layout = storage.HF if target.flow == support.LLMAPI else storage.TRTLLM
    if layout not in recipe.layouts:
        raise PlanInfeasible(
            f"{recipe.name} exists in the unified Hugging Face layout only; the {target.flow} flow reads another.",
            hint="Try --flow llmapi.",
        )
    if layout == storage.HF:
        shards.check_blocks(model, recipe)
    size, _ = groups.choose(model, recipe, None, sharding=sharding)
    kv_type, _ = storage.kv_cache(recipe, storage.NONE if target.gpu.is_cpu else kv_asked, layout=layout)
    converted = ConversionPlan(
        model=model,
        recipe=recipe,
        group_size=size,
        dtype="float16",
        calibration=None,
        layout=layout,
        sharding=sharding,
        kv_cache=kv_type,
    )
    return limits.loaded_on(target.gpu, converted, target.flow, sharding), kv_type


def _capacity(loaded: Loaded, sizing: Sizing) -> float:
    """Return the tokens that all requests in flight share, windows counted: more fit where layers look back less."""
    each = kv_cache.bytes_of_request(loaded.cached, sizing.request_tokens)
    return sizing.memory.kv_cache / each * sizing.request_tokens
