"""What a pool does next: pure, from what each model takes, is worth and has to do.

The worth of a model is GreedyDual-Size's (Cao and Irani, "Cost-Aware WWW Proxy Caching Algorithms", USITS 1997): what
it costs to load again for each byte that it holds, above a floor that rises to the worth of whatever left last. A
model that nobody asks for sinks to the floor, however expensive it was to load.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: What a model is; failed is unloaded, and why its last load did not work is known.
UNLOADED, LOADING, READY, UNLOADING, BROKEN, FAILED = "unloaded", "loading", "ready", "unloading", "broken", "failed"
HOLDS_MEMORY = frozenset({LOADING, READY, UNLOADING, BROKEN})
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model as it is now."""

    name: str
    size_bytes: int  # what it takes or will take, at its largest
    state: str = UNLOADED
    in_flight: int = 0
    waiting_since: float | None = None  # of its oldest waiting request
    resident_since: float = 0.0
    worth: float = 0.0
    is_pinned: bool = False
    is_draining: bool = False
    retry_at: float = 0.0  # after a failed load

    def is_wanted(self, now: float) -> bool:
        """Whether it is to be loaded: somebody waits, or it is pinned."""
        return self.state in {UNLOADED, FAILED} and now >= self.retry_at and (self._has_waiting or self.is_pinned)

    @property
    def _has_waiting(self) -> bool:
        return self.waiting_since is not None


@dataclass(frozen=True, kw_only=True)
class Pool:
    """All models of a device and its limit."""

    models: Sequence[Model]
    limit_bytes: int
    min_residency_s: float

    @property
    def held_bytes(self) -> int:
        """Return what the models in memory take together."""
        return sum(model.size_bytes for model in self.models if model.state in HOLDS_MEMORY)


@dataclass(frozen=True, kw_only=True)
class Load:
    """Load a model: there is room for it."""

    name: str


@dataclass(frozen=True, kw_only=True)
class Unload:
    """Unload a model that has nothing to do; those that drain take no new requests meanwhile."""

    name: str
    why: str
    draining: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Do nothing before something changes, or before a point in time; these models take no new requests meanwhile."""

    until: float | None = None
    draining: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Refuse:
    """Turn away who waits for a model: it cannot fit beside what is pinned."""

    name: str
    needed_bytes: int
    available_bytes: int


Decision = Load | Unload | Wait | Refuse


def worth(floor: float, *, load_s: float, size_bytes: int) -> float:
    """Return what a model that was just used is worth, in seconds of loading for each GiB."""
    return floor + load_s * GIB / max(1, size_bytes)


def decide(pool: Pool, now: float) -> Decision:
    """Return the one next step. One model is loaded or unloaded at a time: that makes sums certain."""
    if any(model.state in {LOADING, UNLOADING} for model in pool.models):
        return Wait()
    for model in pool.models:
        if model.state == BROKEN and not model.in_flight and now >= model.retry_at:
            return Unload(name=model.name, why="its process died")
    if pool.held_bytes > pool.limit_bytes:  # one takes more than was thought
        decided = _make_room(pool, pool.held_bytes - pool.limit_bytes, now, why="over the limit")
        if decided is not None:
            return decided
    wanted = _first_wanted(pool, now)
    if wanted is None:
        return Wait(until=min((model.retry_at for model in pool.models if _is_put_off(model, now)), default=None))
    missing = pool.held_bytes + wanted.size_bytes - pool.limit_bytes
    if missing <= 0:
        return Load(name=wanted.name)
    return _make_room(pool, missing, now, why=f"room for {wanted.name}") or _refusal(pool, wanted)


def _is_put_off(model: Model, now: float) -> bool:
    return model.retry_at > now and (model.state == BROKEN or model.is_wanted(model.retry_at))


def _refusal(pool: Pool, wanted: Model) -> Refuse:
    fixed = sum(model.size_bytes for model in pool.models if model.state in HOLDS_MEMORY and model.is_pinned)
    return Refuse(name=wanted.name, needed_bytes=wanted.size_bytes, available_bytes=pool.limit_bytes - fixed)


def _first_wanted(pool: Pool, now: float) -> Model | None:
    """Return what was asked for first, so that no model is overtaken for ever; a pinned one comes before all."""
    wanted = [model for model in pool.models if model.is_wanted(now)]
    return min(
        wanted, key=lambda m: (not m.is_pinned, now if m.waiting_since is None else m.waiting_since), default=None
    )


def _make_room(pool: Pool, missing: int, now: float, *, why: str) -> Unload | Wait | None:
    """Return the next step towards MISSING bytes more; None where all that may leave does not free so much."""
    candidates = sorted((m for m in pool.models if _may_leave(m)), key=lambda m: (m.worth, m.name))
    if sum(model.size_bytes for model in candidates) < missing:
        return None
    old_enough = [model for model in candidates if now >= _may_leave_at(model, pool)]
    idle = _cheapest(missing, (model for model in old_enough if not model.in_flight))
    if idle:
        return Unload(name=idle[0].name, why=why)
    # Those that already drain first: changing one's mind would drain one after the other and free none.
    leaving = _cheapest(missing, sorted(old_enough, key=lambda model: (not model.is_draining, model.worth, model.name)))
    if leaving:
        draining = frozenset(model.name for model in leaving)
        done = [model for model in leaving if not model.in_flight]
        if done:
            return Unload(name=done[0].name, why=why, draining=draining)
        return Wait(draining=draining)
    return Wait(until=_enough_at(missing, candidates, pool))


def _may_leave(model: Model) -> bool:
    return model.state in {READY, BROKEN} and not model.is_pinned


def _cheapest(missing: int, candidates: Iterable[Model]) -> list[Model]:
    """Return the first of the candidates that free enough together, less those it can do without; none: too few."""
    chosen: list[Model] = []
    for model in candidates:
        chosen.append(model)
        missing -= model.size_bytes
        if missing <= 0:
            break
    else:
        return []
    for model in sorted(chosen, key=lambda model: (-model.worth, model.name)):
        if missing + model.size_bytes <= 0:
            missing += model.size_bytes
            chosen.remove(model)
    return chosen


def _may_leave_at(model: Model, pool: Pool) -> float:
    return 0.0 if model.state == BROKEN else model.resident_since + pool.min_residency_s


def _enough_at(missing: int, candidates: Iterable[Model], pool: Pool) -> float | None:
    """Return when those that may leave by then are enough together."""
    for at, size_bytes in sorted((_may_leave_at(model, pool), model.size_bytes) for model in candidates):
        missing -= size_bytes
        if missing <= 0:
            return at
    return None
