"""What a deployment target is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from toolkit.specs import DeploySpec


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One thing that only this target asks for: `--set NAME=VALUE`, or a key of its table in `--values`."""

    default: str
    help: str


@dataclass(frozen=True, kw_only=True)
class Target:
    """A place to deploy to: its name, the files that say how, and what can be set."""

    name: str
    title: str
    #: Path below the output folder → text; raises UsageError or PlanInfeasible for what this target cannot do.
    render: Callable[[DeploySpec], dict[str, str]]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    volumes: tuple[str, ...] = ("pvc", "oci", "hostpath")  # kinds of ModelVolume, the default one first
    is_multi_node: bool = False  # True: one replica may take several nodes
    is_autoscaled: bool = False  # True: it can hold --autoscale
    is_scaled_by_kv_use: bool = True  # False: its autoscaler does not see how full the KV cache is
    is_disaggregated: bool = False  # True: it can hold --disaggregated
    has_own_image: bool = False  # True: its operator's image serves, and no --image
