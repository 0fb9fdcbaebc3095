"""A pool as the gateway borrows from it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from toolkit import specs
from toolkit.gateway.leases import Busy, ServedModel, UnknownModel
from toolkit.pool import NotHad, Pool, PoolConfig
from toolkit.pool.control import GrpcControl

#: As toolkit.serve tells its companions, and Triton is told to look for it.
SECRET, HEADER = "TRTK_CLOSED_SECRET", "closed"


class Pooled:
    """Lends models that are loaded when they are asked for."""

    def __init__(self, settings: Mapping[str, Any], triton_grpc: str) -> None:
        config = specs.from_json(PoolConfig, settings)
        self._control = GrpcControl(triton_grpc, header=HEADER, secret=os.environ.get(SECRET, ""))
        self._pool = Pool(config, self._control)
        self._pool.start()

    def served(self) -> Sequence[ServedModel]:
        """Return every model with its state."""
        created = self._pool.config.created
        return [ServedModel(name=one.name, created=created, state=one.state) for one in self._pool.entries()]

    @contextlib.asynccontextmanager
    async def lease(self, name: str, *, key: str = "") -> AsyncIterator[str]:
        """Yield the Triton model of NAME once it is loaded; raises UnknownModel or Busy."""
        try:
            lent = self._pool.lend(name, key=key)
            triton_model = await lent.__aenter__()
        except KeyError as error:
            names = ", ".join(entry.name for entry in self._pool.entries())
            raise UnknownModel(f"The model {name!r} is not served here.", hint=f"Served: {names}.") from error
        except NotHad as error:
            raise Busy(str(error), retry_after_s=error.retry_after_s) from error
        try:
            yield triton_model
        finally:
            await lent.__aexit__(None, None, None)

    async def close(self) -> None:
        """End the pool's work."""
        await self._pool.close()
        await self._control.close()
