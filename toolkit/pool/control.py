"""Triton's model control over gRPC, with the secret that opens it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from toolkit.errors import TrtkError

SERVICE = "/inference.GRPCInferenceService"
#: How a restricted API's header is called over gRPC.
HEADER = "triton-grpc-protocol-{name}"
QUESTION_TIMEOUT_S = 10.0


class ControlError(TrtkError):
    """Triton refused; its words are the sentence."""


class Away(ControlError):
    """Triton does not answer: it is being started again, or it is gone."""


class Control(Protocol):
    """Loads and unloads models of one server."""

    async def load(self, model: str, *, timeout_s: float) -> None:
        """Load one Triton model; returns when it is ready, raises ControlError when it is not."""
        ...

    async def unload(self, model: str) -> None:
        """Tell Triton to let a model go; it does so later."""
        ...

    async def states(self) -> dict[str, str]:
        """Return the state of every model that was ever loaded, in Triton's words; raises Away."""
        ...


class GrpcControl:
    """Control over a channel of its own: loading may take minutes."""

    def __init__(self, address: str, *, header: str, secret: str) -> None:
        import grpc
        from tritonclient.grpc import service_pb2 as messages

        self._messages = messages
        self._metadata = ((HEADER.format(name=header), secret),)
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])

    async def load(self, model: str, *, timeout_s: float) -> None:
        """Load one Triton model."""
        kinds = self._messages
        request = kinds.RepositoryModelLoadRequest(model_name=model)
        await self._call("RepositoryModelLoad", request, kinds.RepositoryModelLoadResponse, timeout_s)

    async def unload(self, model: str) -> None:
        """Tell Triton to let a model go."""
        kinds = self._messages
        request = kinds.RepositoryModelUnloadRequest(model_name=model)
        await self._call("RepositoryModelUnload", request, kinds.RepositoryModelUnloadResponse, QUESTION_TIMEOUT_S)

    async def states(self) -> dict[str, str]:
        """Return the state of every model that was ever loaded."""
        kinds = self._messages
        answer = await self._call(
            "RepositoryIndex", kinds.RepositoryIndexRequest(), kinds.RepositoryIndexResponse, QUESTION_TIMEOUT_S
        )
        return {model.name: model.state for model in answer.models if model.state}

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()

    async def _call(self, method: str, request: Any, kind: Any, timeout_s: float) -> Any:
        import grpc

        call = self._channel.unary_unary(
            f"{SERVICE}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=kind.FromString,
        )
        try:
            return await call(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            # A load that fails is UNAVAILABLE in some versions, like a server that is not there.
            is_away = error.code() is grpc.StatusCode.UNAVAILABLE and "failed to connect" in (error.details() or "")
            raise (Away if is_away else ControlError)(sentence(error.details() or error.code().name)) from error


def sentence(words: str) -> str:
    """Return the first line of what Triton says, without what it puts before a model's own words."""
    line = next((line for line in words.strip().splitlines() if line.strip()), "no reason given")
    return line.strip().rstrip(".")


def waiting_parts(states: dict[str, str], parts: Sequence[str]) -> list[str]:
    """Return the parts that Triton has not let go yet."""
    return [part for part in parts if states.get(part, "UNAVAILABLE") != "UNAVAILABLE"]
