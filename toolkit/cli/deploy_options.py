"""Options of `trtk deploy`, and the small nouns that their texts become."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.cli.serve_options import added
from toolkit.errors import UnknownName, UsageError
from toolkit.specs import ModelVolume

if TYPE_CHECKING:
    from toolkit.deploy import Target

F = TypeVar("F", bound=Callable[..., Any])
#: Replicas of one deployment; beyond it somebody mistook tokens for servers.
MOST_REPLICAS = 1000
RANGE = re.compile(r"(\d{1,5})(?:\.\.|-)(\d{1,5})")
DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
AUTOSCALERS = ("keda", "hpa")


def place_options(command: F) -> F:
    """Add where it goes and what it is called there."""
    return added(
        command,
        (
            click.option("--name", help="Of every object; from ENGINE's folder."),
            click.option("--namespace", default="default", show_default=True, help="Of Kubernetes."),
            click.option(
                "--model-volume", "volume", metavar="KIND:WHERE",
                help="pvc:CLAIM[/FOLDER], oci:IMAGE@sha256:… or hostpath:/FOLDER: where the target finds ENGINE.",
            ),
            click.option("--image", metavar="IMAGE", help="That serves, best with its @sha256:…; the release's own."),
            click.option("--gpu", metavar="GPU", help="Card of the target's nodes; the one it was built for."),
            click.option("--gpu-product", metavar="LABEL", help="Nodes of nvidia.com/gpu.product LABEL alone."),
            click.option(
                "--gpus-per-node", type=click.IntRange(min=1), default=8, show_default=True, help="Of the target."
            ),
            click.option("--multi-node", is_flag=True, help="Let one replica take several nodes."),
            click.option("--disaggregated", is_flag=True, help="Prefill and decode in servers of their own (dynamo)."),
            click.option("--openai", is_flag=True, help="Serve OpenAI's clients too."),
            click.option("--gateway-image", metavar="IMAGE", help="With --openai: an image that has `trtk`."),
            click.option(
                "--values", "values_file", type=click.Path(path_type=Path), metavar="FILE",
                help="YAML file of settings that only this target has.",
            ),
            click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="One of those settings."),
        ),
    )  # fmt: skip


def size_options(command: F) -> F:
    """Add how much of it there is."""
    return added(
        command,
        (
            click.option("--replicas", type=click.IntRange(1, MOST_REPLICAS), help="Servers; from the load."),
            click.option("--autoscale", metavar="MIN..MAX", help="As many servers as waiting requests ask for."),
            click.option(
                "--autoscaler", type=click.Choice(AUTOSCALERS),
                help=f"Who does it: {AUTOSCALERS[0]} unless said; hpa needs a metrics adapter.",
            ),
            click.option("--prometheus", metavar="URL", help="Where --autoscale reads the servers' metrics."),
            click.option(
                "--report", type=click.Path(path_type=Path), help="A load test of ENGINE on that card: size by it."
            ),
        ),
    )  # fmt: skip


def volume_of(text: str | None, target: Target, name: str) -> ModelVolume:
    """Return where the target finds the model; without a word, the target's first kind under the deployment's name."""
    if text is None:
        return ModelVolume(
            kind=target.volumes[0], source=f"/srv/{name}" if target.volumes[0] == "hostpath" else f"{name}-model"
        )
    kind, _, where = text.partition(":")
    if kind not in ("pvc", "oci", "hostpath") or not where:
        raise UsageError(
            f"--model-volume {text} names no volume.",
            hint="Write pvc:CLAIM, pvc:CLAIM/FOLDER, oci:REGISTRY/NAME@sha256:… or hostpath:/FOLDER.",
        )
    return {"pvc": _claim, "oci": _image, "hostpath": _path}[kind](where)


def _claim(where: str) -> ModelVolume:
    from toolkit.deploy import names

    claim, _, folder = where.partition("/")
    names.need_label(claim, "--model-volume pvc:")
    parts = folder.split("/") if folder else []
    if any(part in {"", ".", ".."} for part in parts) or not folder.isprintable():
        raise UsageError(f"{folder!r} is no folder inside a claim.", hint="Write pvc:CLAIM/models/demo.")
    return ModelVolume(kind="pvc", source=claim, sub_path=folder)


def _image(where: str) -> ModelVolume:
    if not DIGEST.fullmatch(where):
        raise UsageError(
            f"oci:{where} has no digest: a tag may be another model tomorrow.",
            hint="Write oci:REGISTRY/NAME@sha256:…; the registry shows it after the push.",
        )
    return ModelVolume(kind="oci", source=where)


def _path(where: str) -> ModelVolume:
    if not where.startswith("/") or ".." in where.split("/") or any(ord(letter) < 32 for letter in where):
        raise UsageError(f"hostpath:{where} is no absolute path.", hint="Write hostpath:/srv/models/demo.")
    if not where.strip("/"):
        raise UsageError("hostpath:/ is all of a machine.", hint="Write hostpath:/srv/models/demo.")
    return ModelVolume(kind="hostpath", source=where.rstrip("/"))


def range_of(text: str) -> tuple[int, int]:
    """Return (fewest, most) of --autoscale."""
    found = RANGE.fullmatch(text.strip())
    fewest, most = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= fewest <= most <= MOST_REPLICAS:
        raise UsageError(
            f"--autoscale {text} is no range of servers; 0 would need something that holds requests meanwhile.",
            hint="Write --autoscale 1..4.",
        )
    return fewest, most


def settings_of(options: Mapping[str, Any], target: Target) -> dict[str, str]:
    """Return the target's settings: --set over --values over the defaults; an unknown one is an error."""
    given = _from_file(options["values_file"], target) if options["values_file"] else {}
    for text in options["settings"]:
        key, sign, value = text.partition("=")
        if not sign:
            raise UsageError(f"--set {text} has no value.", hint=f"Write --set {text}=VALUE.")
        given[key.strip()] = value
    for key in given:
        if key not in target.settings:
            raise UnknownName(f"setting of {target.name}", key, target.settings)
    return {name: given.get(name, setting.default) for name, setting in target.settings.items()}


def _from_file(path: Path, target: Target) -> dict[str, str]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", hint="Give a YAML file.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {error}.", hint="One `name: value` a line.") from error
    known = ", ".join(target.settings) or "none"
    if not isinstance(document, dict) or not all(
        isinstance(value, (str, int, float, bool)) for value in document.values()
    ):
        raise UsageError(
            f"{path} is no list of settings.", hint=f"One `name: value` a line; {target.name} has {known}."
        )
    return {str(key): _text(value) for key, value in document.items()}


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
