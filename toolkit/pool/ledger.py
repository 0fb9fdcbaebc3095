"""What each model is charged with, and whether all can be served within the limit, one after the other at least."""

from __future__ import annotations

from pathlib import Path

from toolkit.errors import PlanInfeasible
from toolkit.pool import journal
from toolkit.pool.config import PoolConfig, PooledModel
from toolkit.pool.lending import Entry

MIB = 1 << 20
#: Less cache than this is no advice.
FEWEST_TOKENS = 1024


def entries(config: PoolConfig) -> dict[str, Entry]:
    """Return every model, with what earlier runs measured of the same bytes."""
    seen = journal.measured(Path(config.journal))
    made = {}
    for model in config.models:
        figures = seen.get((model.artefact, model.kv_tokens), {})
        made[model.name] = Entry(
            model=model,
            load_s=figures.get("load_s", 0.0),
            peak_bytes=figures.get("peak_bytes", 0),
            is_known_at_work=figures.get("is_known_at_work", False),
        )
    return made


def sizes_bytes(config: PoolConfig) -> dict[str, int]:
    """Return what each model is charged with."""
    return {name: entry.size_bytes for name, entry in entries(config).items()}


def need_to_fit(config: PoolConfig) -> None:
    """Raise PlanInfeasible where a model does not fit beside those that are pinned, with the numbers."""
    sizes = sizes_bytes(config)
    pinned = {model.name: sizes[model.name] for model in config.models if model.is_pinned}
    for model in config.models:
        others = {name: size for name, size in pinned.items() if name != model.name}
        needed = sizes[model.name] + sum(others.values())
        if needed <= config.memory_bytes:
            continue
        beside = f" beside {' and '.join(others)}, pinned," if others else ""
        raise PlanInfeasible(
            f"The model {model.name!r} takes {sizes[model.name] // MIB} MiB ({_parts(model)}); with it{beside} the"
            f" device would hold {needed // MIB} MiB, and --memory is {config.memory_bytes // MIB} MiB.",
            hint=f"Give --memory {-(-needed // MIB)}MiB{_or_fewer_tokens(model, needed - config.memory_bytes)}.",
        )


def _or_fewer_tokens(model: PooledModel, excess_bytes: int) -> str:
    fitting = model.kv_tokens + -excess_bytes // model.kv_bytes_per_token
    return f", or fewer tokens: --kv-tokens {model.name}={fitting}" if fitting >= FEWEST_TOKENS else ""


def _parts(model: PooledModel) -> str:
    size = model.size
    return (
        f"weights {size.weights_bytes // MIB}, {model.kv_tokens} tokens of cache {size.kv_bytes // MIB}, activations"
        f" {size.activation_bytes // MIB}, processes {size.runtime_bytes // MIB}"
    )
