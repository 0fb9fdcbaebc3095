"""Images by tag and digest: pulled with progress where they are not there, and pinned to what was found."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.containers.daemon import Daemon, connect, daemon_errors_named, explanation
from toolkit.errors import MissingError, UsageError
from toolkit.specs import Progress, no_progress

#: A layer that says this has nothing more to fetch.
DONE = {"Download complete", "Pull complete", "Already exists"}


@dataclass(frozen=True, kw_only=True)
class Image:
    """An image of the daemon: a tag moves, an id and a digest do not."""

    reference: str  # as asked for
    image_id: str  # sha256:…
    digest: str  # NAME@sha256:… where it came from a registry; else the id


def need_image(daemon: Daemon, reference: str, *, progress: Progress = no_progress) -> Image:
    """Return an image, pulled where the daemon does not have it; raises MissingError when it cannot be had."""
    import docker

    if not reference or any(letter.isspace() for letter in reference):
        raise UsageError(f"{reference!r} is no image's name.", hint="Give NAME:TAG or NAME@sha256:DIGEST.")
    with daemon_errors_named(daemon):
        try:
            found = daemon.client.images.get(reference)
        except docker.errors.ImageNotFound:
            _pull(daemon, reference, progress)
            found = daemon.client.images.get(reference)
    return Image(reference=reference, image_id=found.id, digest=_digest(found, reference))


def known_digest(reference: str) -> str:
    """Return NAME@sha256:… of an image that a daemon here has from a registry; empty where none says so."""
    import docker

    try:
        with contextlib.closing(connect()) as daemon:
            found = _digest(daemon.client.images.get(reference), reference)
    except (MissingError, docker.errors.APIError):
        return ""
    return found if "@" in found else ""


def _digest(found: Any, reference: str) -> str:
    name = _repository(reference)
    digests: list[str] = found.attrs.get("RepoDigests") or []
    return next((digest for digest in digests if _repository(digest) == name), found.id)


def _repository(reference: str) -> str:
    name = reference.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return head + slash + last.partition(":")[0]


def _pull(daemon: Daemon, reference: str, progress: Progress) -> None:
    import docker

    step = f"Pull {reference}"
    progress(step, 0, 1)
    try:
        events = daemon.client.api.pull(reference, stream=True, decode=True)
        for done, total in _bytes_of(_checked(events, reference)):
            progress(step, done, total)
    except docker.errors.APIError as error:
        raise refused(reference, explanation(error)) from error
    progress(step, 1, 1)


def _checked(events: Iterable[Mapping[str, Any]], reference: str) -> Iterable[Mapping[str, Any]]:
    for event in events:
        if "error" in event:  # the stream has begun: an error is no status code any more
            raise refused(reference, str(event["error"]).rstrip("."))
        yield event


def _bytes_of(events: Iterable[Mapping[str, Any]]) -> Iterable[tuple[float, float]]:
    """Yield bytes that are here and bytes in all, of the layers that are known so far."""
    done: dict[str, float] = {}
    total: dict[str, float] = {}
    for event in events:
        layer, status = event.get("id"), event.get("status")
        detail = event.get("progressDetail") or {}
        if layer and status == "Downloading" and detail.get("total"):
            done[layer], total[layer] = detail["current"], detail["total"]
        elif layer in total and status in DONE:
            done[layer] = total[layer]
        if total:
            yield sum(done.values()), sum(total.values())


def refused(reference: str, said: str) -> MissingError:
    """Return why an image could not be pulled, with what helps."""
    lowered = said.lower()
    registry, slash, _ = reference.partition("/")
    if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
        registry = "docker.io"  # where Docker looks for a name without a host
    if "no space left" in lowered:
        hint = "Free space where the daemon keeps images: docker system df; docker image prune."
    elif any(word in lowered for word in ("unauthorized", "denied", "authentication required")):
        hint = f"Log in first: docker login {registry}"
    elif any(word in lowered for word in ("not found", "manifest unknown", "no such image")):
        hint = "`trtk releases` lists images; --image names another."
    else:
        hint = f"Does the daemon's machine reach {registry}? An image can be carried: docker save | docker load."
    return MissingError(f"The image {reference} could not be pulled: {said}.", hint=hint)
