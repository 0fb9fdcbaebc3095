"""The few questions that trtk asks a server over HTTP."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from toolkit.errors import ServerError
from toolkit.serve.backend import triton_id

if TYPE_CHECKING:
    import httpx


class NoAnswer(ServerError):
    """Nothing came back in time."""


class QueueFull(ServerError):
    """Too many others wait already."""


#: A server that does not answer a health question in this time is not ready.
HEALTH_TIMEOUT_S = 2.0
#: Triton's words, and the engines' own; the status is 400 or 503, as the model is.
QUEUE_IS_FULL = "maximum queue size"


def is_ready(url: str, server_id: str) -> bool:
    """Whether the server at URL is this one and all its models are loaded."""
    import httpx

    try:
        with _client(url, HEALTH_TIMEOUT_S) as client:
            if client.get("/v2/health/ready").status_code != 200:
                return False
            return bool(client.get("/v2").json().get("name") == triton_id(server_id))
    except (httpx.HTTPError, ValueError):
        return False


def answers(url: str) -> bool:
    """Whether GET answers 200."""
    import httpx

    try:
        return httpx.get(url, timeout=HEALTH_TIMEOUT_S, trust_env=False).status_code == 200
    except httpx.HTTPError:
        return False


def text(url: str) -> str:
    """Return what GET answers; empty where it does not."""
    import httpx

    try:
        return httpx.get(url, timeout=HEALTH_TIMEOUT_S, trust_env=False).text
    except httpx.HTTPError:
        return ""


def models(url: str, names: Iterable[str]) -> tuple[str, ...]:
    """Return which of these models are ready; none when the server does not answer."""
    import httpx

    try:
        with _client(url, HEALTH_TIMEOUT_S) as client:
            return tuple(name for name in names if client.get(f"/v2/models/{name}/ready").status_code == 200)
    except httpx.HTTPError:
        return ()


def generate_one_token(url: str, model: str, *, timeout_s: float) -> None:
    """Ask for one token; an answer proves more than readiness does."""
    import httpx

    body: dict[str, Any] = {"text_input": "Hi", "max_tokens": 1, "stream": False}
    try:
        with _client(url, timeout_s) as client:
            answer = client.post(f"/v2/models/{model}/generate", json=body)
    except httpx.TimeoutException as error:
        raise NoAnswer(f"Model {model!r} did not answer a request for one token in {timeout_s:.0f} s.") from error
    except httpx.HTTPError as error:
        raise ServerError(f"The server went away while model {model!r} made its first token: {error}.") from error
    if answer.status_code != 200:
        said = _said(answer)
        kind = QueueFull if QUEUE_IS_FULL in said.lower() else ServerError
        raise kind(f"Model {model!r} answered a request for one token with {answer.status_code}: {said}.")


def _client(url: str, timeout_s: float) -> httpx.Client:
    import httpx

    # A proxy of the environment must not see what goes to loopback.
    return httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)


def _said(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"]).strip().splitlines()[0].rstrip(".")
    except (ValueError, KeyError, TypeError, IndexError):
        return answer.text[:200] or "an empty body"
