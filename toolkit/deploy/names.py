"""Names that Kubernetes takes: legal, stable, and different where what they name is different."""

from __future__ import annotations

import hashlib
import re

from toolkit.errors import UsageError

#: RFC 1035, which Services keep to: a letter first. Below 63, because owners put suffixes behind it.
LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
MAX_LABEL, MAX_NAME = 63, 40
HASH_LENGTH = 8
#: Of a label's value: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?")
KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
MANAGER = "trtk"
#: https://pkg.go.dev/github.com/distribution/reference: registry, path, tag and digest.
IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:-]*(/[a-z0-9][a-z0-9._-]*)*(:[\w.-]{1,128})?(@sha256:[0-9a-f]{64})?")


def name_of(text: str, *, limit: int = MAX_NAME) -> str:
    """Return TEXT as a DNS label; one that had to change carries a hash of what it was, so no two become alike."""
    if len(text) <= limit and LABEL.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]
    plain = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    begun = plain if plain[:1].isalpha() else f"m-{plain}".rstrip("-")
    return f"{begun[: limit - HASH_LENGTH - 1].rstrip('-')}-{digest}"


def part_of(name: str, suffix: str, *, limit: int = MAX_LABEL) -> str:
    """Return the name of one of a deployment's objects: NAME-SUFFIX, cut with a hash where that is too long."""
    return name_of(f"{name}-{suffix}", limit=limit)


def need_label(text: str, option: str) -> str:
    """Return a name that a user gave; raises UsageError where it is no DNS label."""
    limit = MAX_NAME if option == "--name" else MAX_LABEL
    pattern = LABEL if option == "--name" else re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
    if len(text) <= limit and pattern.fullmatch(text):
        return text
    said = _said(option)
    raise UsageError(
        f"{said}{text!r} is no DNS label: lower case letters, digits and dashes between them, "
        f"at most {limit} characters.",
        hint=f"Try {said}{name_of(text, limit=limit) if text else 'llm'}.",
    )


def need_image_name(image: str | None, option: str) -> None:
    """Raise UsageError where an image's name is none."""
    if image and not IMAGE.fullmatch(image):
        said = _said(option)
        raise UsageError(f"{said}{image!r} is no image.", hint=f"Write {said}REGISTRY/NAME@sha256:…")


def _said(option: str) -> str:
    """Return what stands before an option's value: `--set pull_secret=` and `--model-volume pvc:` need no space."""
    return option if option.endswith(("=", ":")) else f"{option} "


def selector(name: str) -> dict[str, str]:
    """Return the labels that pods are found by: of this deployment and of no other in its namespace."""
    return {"app.kubernetes.io/name": MANAGER, "app.kubernetes.io/instance": name}


def labels(name: str, *, version: str = "", component: str = "server") -> dict[str, str]:
    """Return the labels of every object of a deployment: the selector's, and what people look for."""
    further = {"app.kubernetes.io/version": version, "app.kubernetes.io/component": component}
    return {
        **selector(name),
        "app.kubernetes.io/managed-by": MANAGER,
        **{key: value_of(value) for key, value in further.items() if value},
    }


def value_of(text: str) -> str:
    """Return TEXT as a label's value; one that had to change carries a hash of what it was."""
    if len(text) <= MAX_LABEL and VALUE.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")
    return f"{plain[: MAX_LABEL - HASH_LENGTH - 1].rstrip('-_.')}-{digest}".lstrip("-")
