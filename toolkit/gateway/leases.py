"""Who may use which Triton model now: the gateway asks, a pool or a fixed list answers."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from toolkit.errors import TrtkError


@dataclass(frozen=True, kw_only=True)
class ServedModel:
    """A model that clients can name."""

    name: str
    created: int  # seconds since 1970, as OpenAI's list has it
    state: str  # ready, loading, unloaded, failed


class UnknownModel(TrtkError):
    """A client named a model that is not served."""

    exit_code = 2


class Busy(TrtkError):
    """A model cannot be had now: its queue is full, or it did not load in time."""

    exit_code = 6

    def __init__(self, sentence: str, *, retry_after_s: float) -> None:
        super().__init__(sentence)
        self.retry_after_s = retry_after_s


class Leases(Protocol):
    """Lends Triton models to requests; a model with a lease is not unloaded."""

    def served(self) -> Sequence[ServedModel]:
        """Return the models that clients can name, in a fixed order; never waits."""
        ...

    def lease(self, name: str, *, key: str = "") -> contextlib.AbstractAsyncContextManager[str]:
        """Yield the Triton model to call, once it is loaded, to the one with a KEY; raises UnknownModel or Busy."""
        ...

    async def close(self) -> None:
        """End what was begun; nobody borrows any more."""
        ...


class Fixed:
    """Models that are loaded as long as the server is: lends at once."""

    def __init__(self, triton_models: Mapping[str, str], *, created: int) -> None:
        self._triton_models = dict(triton_models)  # by the name that clients use
        self._created = created

    def served(self) -> Sequence[ServedModel]:
        """Return every model; all are ready."""
        return [ServedModel(name=name, created=self._created, state="ready") for name in self._triton_models]

    @contextlib.asynccontextmanager
    async def lease(self, name: str, *, key: str = "") -> AsyncIterator[str]:
        """Yield the Triton model of NAME; raises UnknownModel."""
        del key  # nobody waits
        triton_model = self._triton_models.get(name)
        if triton_model is None:
            raise UnknownModel(
                f"The model {name!r} is not served here.", hint=f"Served: {', '.join(self._triton_models)}."
            )
        yield triton_model

    async def close(self) -> None:
        """Do nothing: models stay as they are."""
