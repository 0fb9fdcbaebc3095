"""What a pool is told: its models, what each takes, and the limit; plain JSON inside the gateway's CONFIG.json."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Size:
    """What a model takes on its device, by part."""

    weights_bytes: int
    kv_bytes: int  # of kv_tokens
    activation_bytes: int  # of the most tokens that are worked on at once
    runtime_bytes: int  # libraries, and the processes themselves

    @property
    def total_bytes(self) -> int:
        """Return the sum."""
        return self.weights_bytes + self.kv_bytes + self.activation_bytes + self.runtime_bytes


@dataclass(frozen=True, kw_only=True)
class PooledModel:
    """One model that clients can name, and the Triton models that it is made of."""

    name: str
    parts: tuple[str, ...]  # Triton's names of all of them; clients call NAME itself
    loaded: tuple[str, ...]  # the parts that Triton is told to load: an ensemble brings its steps, and telling it of
    # those first would load them twice, with both copies in memory at once
    artefact: str  # hash of what is served: a size that was measured for it stays true
    kv_tokens: int
    kv_bytes_per_token: int
    size: Size  # as computed; what is measured takes its place
    is_pinned: bool = False

    @property
    def holders(self) -> tuple[str, ...]:
        """Return the parts that take memory: an ensemble takes none."""
        is_ensemble = len(self.parts) > len(self.loaded)
        return tuple(part for part in self.parts if not (is_ensemble and part == self.name))


@dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """A device's models."""

    models: tuple[PooledModel, ...]
    memory_bytes: int
    repository: str  # absolute; whose processes' memory is measured
    journal: str
    snapshot: str  # what `trtk ps` reads
    created: int  # seconds since 1970
    min_residency_s: float = 30.0
    queue: int = 64  # waiting requests of each model
    queue_timeout_s: float = 60.0
    load_timeout_s: float = 600.0
    is_measured: bool = True  # False: on a device whose memory is not that of processes here
