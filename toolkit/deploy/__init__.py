"""From one deployment to the files of a target: pure, so the same spec gives the same bytes."""

from __future__ import annotations

from toolkit import files, registry
from toolkit.deploy.guide import Guide, Step, readme
from toolkit.deploy.target import Setting, Target
from toolkit.errors import PlanInfeasible
from toolkit.specs import DeploySpec, to_json

__all__ = ["RECORD", "Guide", "Setting", "Step", "Target", "catalogue", "pick", "readme", "render"]

#: The spec itself, beside what was made of it: a folder without it is not ours, and `--check` reads it.
RECORD = "deploy.json"
#: In it, every other file with its sha256: what is not among them, or has changed, is the user's.
WRITTEN = "files"


def catalogue() -> dict[str, Target]:
    """Return every target by name."""
    entries = registry.entries_in("toolkit.deploy.targets", "TARGET", Target)
    return registry.by_name(entries, lambda target: [target.name])


def pick(name: str) -> Target:
    """Return the target called NAME."""
    return registry.pick(catalogue(), name, kind="deployment target", command="trtk deploy --help")


def render(spec: DeploySpec) -> dict[str, str]:
    """Return the files of a deployment: path below its folder → text."""
    target = pick(spec.target)
    _need_possible(spec, target)
    made = target.render(spec)
    written = {name: files.sha256_text(text) for name, text in sorted(made.items())}
    made[RECORD] = files.canonical_json({**to_json(spec), WRITTEN: written})
    return dict(sorted(made.items()))


def _need_possible(spec: DeploySpec, target: Target) -> None:
    able = [one.name for one in catalogue().values() if one.name != target.name]
    wishes = (
        (spec.placement.nodes > 1 and not target.is_multi_node, "run one replica on several nodes", "is_multi_node"),
        (spec.autoscale is not None and not target.is_autoscaled, "scale by itself", "is_autoscaled"),
        (spec.is_disaggregated and not target.is_disaggregated, "separate prefill and decode", "is_disaggregated"),
    )
    for is_unmet, what, ability in wishes:
        if is_unmet:
            others = [name for name in able if getattr(catalogue()[name], ability)]
            raise PlanInfeasible(f"{target.title} cannot {what}.", hint=f"Try the target {' or '.join(others)}.")
    if spec.volume.kind not in target.volumes:
        raise PlanInfeasible(
            f"{target.title} takes no model volume of the kind {spec.volume.kind}.",
            hint=f"It takes {', '.join(target.volumes)}.",
        )
