"""What every request goes through: key, body, place, model, answer, and a record of it."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolkit.gateway import origins, refusals
from toolkit.gateway.admission import Admission
from toolkit.gateway.audit import AuditLog
from toolkit.gateway.bodies import Bodies
from toolkit.gateway.config import GatewayConfig
from toolkit.gateway.exchange import Exchange
from toolkit.gateway.keys import Keys
from toolkit.gateway.leases import Busy, Leases, UnknownModel
from toolkit.gateway.metrics import NO_MODEL, Metrics
from toolkit.gateway.refusals import CLIENT_LEFT, ClientLeft, Refusal
from toolkit.gateway.triton import Triton

#: For cancelled requests to end in: their work in Triton is taken back first.
LAST_WORDS_S = 1.5
#: In about that time whoever starts it again has done so.
STOPPING_RETRY_S = 5.0


@dataclass
class Seen:
    """What is known of a request when it is over."""

    endpoint: str
    began: str  # ISO 8601, UTC
    key_id: str = ""
    model: str = ""  # that is served, or empty
    outcome: str = "failed"  # ok, refused, failed, cancelled
    status: int = 500
    error: str = ""  # its type; sentences may quote the request
    input_tokens: int | None = None
    output_tokens: int | None = None
    queued_s: float = 0.0
    ttft_s: float | None = None
    duration_s: float = 0.0
    prompts: Sequence[str] = field(default_factory=tuple)


class Gateway:
    """What all endpoints share."""

    def __init__(self, config: GatewayConfig, leases: Leases, triton: Triton) -> None:
        self.config, self.leases, self.triton = config, leases, triton
        self.admission, self.bodies = Admission(config.limits), Bodies(config.limits.bodies_bytes)
        self.metrics = Metrics(running=lambda: self.admission.running, waiting=lambda: self.admission.waiting)
        self.open: set[asyncio.Task[Any]] = set()
        self.keys = Keys(Path(config.api_keys)) if config.api_keys else None
        self.audit = AuditLog(Path(config.audit.path), is_required=config.audit.is_required) if config.audit else None
        if self.audit:
            self.audit.append({"kind": "start", "time": now(), "models": dict(config.digests)})

    async def close(self) -> None:
        """Let go of Triton and of the audit log, once the requests that were cut off have been told."""
        if self.open:
            await asyncio.wait(self.open, timeout=LAST_WORDS_S)
        await self.leases.close()
        await self.triton.close()
        if self.audit:
            self.audit.append({"kind": "stop", "time": now()})
            self.audit.close()

    def key_of(self, exchange: Exchange) -> str:
        """Return the id of the key that a request shows; raises Refusal where it needs one and has none."""
        if self.keys is None:
            origins.need_own(exchange.header(b"host"), exchange.header(b"origin"), host=self.config.host)
            return ""
        scheme, _, presented = exchange.header(b"authorization").partition(" ")
        if scheme.lower() != "bearer" or not presented:
            raise Refusal(
                refusals.UNAUTHORIZED,
                "You didn't provide an API key. Send it in an Authorization header: Authorization: Bearer YOUR_KEY.",
            )
        key_id = self.keys.id_of(presented.strip())
        if key_id is None:
            raise Refusal(refusals.UNAUTHORIZED, "Incorrect API key provided.")
        return key_id

    def record(self, seen: Seen, exchange: Exchange) -> None:
        """Count a request and write it down."""
        seen.duration_s = time.monotonic() - exchange.received_at
        model = seen.model or NO_MODEL
        metrics = self.metrics
        metrics.requests.labels(seen.endpoint, model, seen.outcome, str(seen.status)).inc()
        for kind, count in (("input", seen.input_tokens), ("output", seen.output_tokens)):
            if count:
                metrics.tokens.labels(model, kind).inc(count)
        if seen.ttft_s is not None:
            metrics.ttft.labels(model).observe(seen.ttft_s)
        if seen.outcome == "ok":
            metrics.duration.labels(model).observe(seen.duration_s)
        if self.audit:
            self.audit.append(self._fields(seen, exchange.id))

    def _fields(self, seen: Seen, request_id: str) -> dict[str, Any]:
        def ms(seconds: float | None) -> float | None:
            return None if seconds is None else round(1000 * seconds, 1)

        fields: dict[str, Any] = {
            "kind": "request",
            "time": seen.began,
            "request_id": request_id,
            "key_id": seen.key_id or None,
            "endpoint": seen.endpoint,
            "model": seen.model or None,
            "artefact": self.config.digests.get(seen.model),
            "outcome": seen.outcome,
            "status": seen.status,
            "error": seen.error or None,
            "input_tokens": seen.input_tokens,
            "output_tokens": seen.output_tokens,
            "queued_ms": ms(seen.queued_s),
            "ttft_ms": ms(seen.ttft_s),
            "duration_ms": ms(seen.duration_s),
        }
        if self.config.audit and self.config.audit.has_prompts:
            fields["prompts"] = list(seen.prompts)
        return fields

    def fingerprint(self, model: str) -> str:
        """Return what tells one build of a model from another."""
        digest = self.config.digests.get(model) or hashlib.sha256(model.encode()).hexdigest()
        return f"fp_{digest[:12]}"


class Endpoint(ABC):
    """An ASGI application for one kind of request that makes models work."""

    name: str

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    @abstractmethod
    async def answer(self, exchange: Exchange, body: bytes, seen: Seen) -> bytes:
        """Do the work; return the last bytes of the answer, which are sent once it is recorded."""

    def error_body(self, refusal: Refusal) -> bytes:
        """Return an error as this kind of client reads it."""
        return refusal.body()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; a gateway that stops waits for its last word."""
        task = asyncio.current_task()
        assert task
        self.gateway.open.add(task)
        try:
            await self._recorded(scope, receive, send)
        finally:
            self.gateway.open.discard(task)

    async def _recorded(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request; whatever becomes of it is recorded."""
        exchange, seen = Exchange(scope, receive, send), Seen(self.name, now())
        last, refusal = b"", None
        try:
            last = await self._served(exchange, seen)
            seen.outcome, seen.status = "ok", 200
        except Refusal as error:
            refusal = error
            seen.status, seen.error = refusal.kind.status, refusal.kind.code or refusal.kind.type
            seen.outcome = "refused" if refusal.kind.status < 500 else "failed"
        except ClientLeft:
            seen.outcome, seen.status = "cancelled", CLIENT_LEFT
            return
        except asyncio.CancelledError:  # this gateway stops, and has waited as long as it may
            refusal = Refusal(refusals.UNAVAILABLE, "The server is stopping.", retry_after_s=STOPPING_RETRY_S)
            seen.outcome, seen.status = "cancelled", refusal.kind.status
        finally:
            self.gateway.record(seen, exchange)
        if refusal is not None:
            await exchange.refuse(refusal, self.error_body(refusal))
        elif exchange.is_begun:
            await exchange.end(last)
        else:
            await exchange.answer(last)

    async def _served(self, exchange: Exchange, seen: Seen) -> bytes:
        seen.key_id = self.gateway.key_of(exchange)
        if self.gateway.audit:
            self.gateway.audit.need_writable()
        limits = self.gateway.config.limits
        try:
            with self.gateway.bodies.room() as room:
                body = await exchange.body(limits, room)
                return await exchange.while_connected(self.answer(exchange, body, seen), timeout_s=limits.request_s)
        except UnknownModel as error:
            raise Refusal(refusals.NOT_FOUND, str(error), param="model") from error
        except Busy as error:
            raise Refusal(refusals.TOO_MANY, str(error), retry_after_s=error.retry_after_s) from error


def now() -> str:
    """Return the time as records have it."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
