"""`trtk repo ENGINE`: the repository of a built folder, with other settings or in another place."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from toolkit import engine, repository, workspace
from toolkit.cli import output, repositories, repository_options
from toolkit.cli.repositories import Places
from toolkit.engine import bundle
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.files import FolderLock
from toolkit.plan import build_flags
from toolkit.specs import BuildPlan, from_json

Mounts = tuple[tuple[str, str], ...]


def run(built: Path, folder: Path | None, tag: str | None, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Write the repository of BUILT, or show what would change."""
    if tag:
        raise UsageError(
            "--release is of --check; a repository is for the release of its engine.", hint="Leave --release out."
        )
    plan = plan_of(built)
    target = folder or workspace.repository_dir(built.absolute().name)
    _need_another_place(built, target)
    settings = repository_options.over(plan.repository, options, plan.flow)
    plan = repository_options.with_settings(plan, settings)
    draft = options["draft"]
    places = _places(built, target, plan, options)
    if draft:
        plan, places = _with_draft(plan, places, draft, options["mounted"])
    around = dataclasses.replace(repositories.surroundings_of(plan), mounts=options["mounted"])
    files = repositories.files_of(plan, target, tokenizer=built / engine.TOKENIZER, places=places, around=around)
    if options["dry_run"]:
        _show_changes(files, target, as_json=as_json)
        return
    with FolderLock(target):
        if options["force"]:
            _need_ours(target)
        repository.write(files, target, is_forced=options["force"], about=_record(plan, built, options))
    _show(plan, built, target, files, as_json=as_json)


def plan_of(built: Path) -> BuildPlan:
    """Return the plan of a folder that `trtk build` finished."""
    if not built.is_dir():
        raise UsageError(f"There is no folder {built}.", hint="`trtk build` makes one; `ls engines` lists them.")
    manifest = engine.manifest_of(built)
    if manifest is None or manifest.kind == "checkpoint":
        what = "holds a checkpoint, which nothing serves yet" if manifest else "is no folder that `trtk build` finished"
        raise UsageError(f"{built} {what}.", hint="`trtk build` makes one; `ls engines` lists them.")
    try:
        return from_json(BuildPlan, manifest.plan)
    except TypeError as error:
        raise UsageError(
            f"The manifest of {built} was written by trtk {manifest.tool_versions.get('trtk')}: {error}.",
            hint="Build it again with this version.",
        ) from error


def _need_another_place(built: Path, target: Path) -> None:
    """Refuse to write into a built folder, whose files its manifest seals, or over the folder that holds it."""
    inner, outer = target.resolve(), built.resolve()
    if inner.is_relative_to(outer):
        raise UsageError(
            f"{target} is inside {built}, whose manifest says what is in it.",
            hint="Give another folder with -o, or run `trtk build` with these settings: it takes the engine as it is.",
        )
    if outer.is_relative_to(inner):
        raise UsageError(f"-o {target} would take the place of {built}.", hint="Give another folder with -o.")


def _need_ours(target: Path) -> None:
    """Refuse to force what was never written here: --force is for files that were edited, not for any folder."""
    if target.is_dir() and any(target.iterdir()) and not repository.record_of(target):
        raise UsageError(
            f"{target} was not written by `trtk repo`, so --force leaves it alone.",
            hint="Give another folder with -o, or move that one away.",
        )


def _places(built: Path, target: Path, plan: BuildPlan, options: Mapping[str, Any]) -> Places:
    mounts: Mounts = options["mounted"]
    start = target.absolute()
    return Places(
        tokenizer=options["tokenizer_dir"] or _seen(built / engine.TOKENIZER, mounts, start=start),
        engine=options["engine_dir"] or _engine(built, plan, mounts, start),
        repository=_seen(start, mounts),
    )


def _engine(built: Path, plan: BuildPlan, mounts: Mounts, start: Path) -> str:
    """Return where the server finds the engine; NVIDIA's backend wants an absolute path."""
    if plan.flow == "engine":
        compiled = compiled_in(built)
        if compiled is None:
            output.note(
                f"{built} has no compiled engine yet: the repository names {bundle.ENGINE_LINK}, where its start.py"
                " puts it. --engine-dir names another place."
            )
            return ""
        return _seen(compiled, mounts)
    return _seen(built / (engine.ENGINE if plan.gpu.is_cpu else engine.CHECKPOINT), mounts, start=start)


def compiled_in(built: Path) -> Path | None:
    """Return the folder of a built engine that is compiled, the newest where there are several."""
    found = sorted((built / engine.ENGINE).glob("*/config.json"), key=lambda path: path.stat().st_mtime)
    return found[-1].parent if found else None


def _seen(path: Path, mounts: Mounts, *, start: Path | None = None) -> str:
    """Return a path as the server sees it: by a mount, relative to START, or as it is here."""
    absolute = path.resolve()
    for here, there in mounts:
        if absolute.is_relative_to(Path(here).resolve()):
            return str(PurePosixPath(there) / absolute.relative_to(Path(here).resolve()))
    return os.path.relpath(absolute, start.resolve()) if start else str(absolute)


def _with_draft(plan: BuildPlan, places: Places, draft: Path, mounts: Mounts) -> tuple[BuildPlan, Places]:
    """Return the plan and the places of an engine that another one proposes tokens to."""
    other = plan_of(draft)
    compiled = compiled_in(draft)
    mode = build_flags.value_of(plan.build_flags, "speculative_decoding_mode")
    if plan.flow != "engine" or other.flow != "engine" or compiled is None:
        raise PlanInfeasible(
            f"A draft model needs two compiled engines; {draft} is of the {other.flow} flow"
            f"{'' if compiled else ' and not compiled'}, and this one is of the {plan.flow} flow.",
            hint="Build both with --flow engine where their GPU is.",
        )
    if mode != "draft_tokens_external":
        raise PlanInfeasible(
            "This engine takes no tokens from a draft model: it was built without that.",
            hint="Build it with --speculative draft_tokens_external.",
        )
    ours, theirs = plan.conversion.model.vocab_size, other.conversion.model.vocab_size
    if ours != theirs:
        raise PlanInfeasible(
            f"The draft model has {theirs} tokens and this one {ours}; both must read the same tokenizer's.",
            hint="Take a smaller model of the same family.",
        )
    return _sharing(plan, other), dataclasses.replace(places, draft_engine=_seen(compiled, mounts))


def _sharing(plan: BuildPlan, draft: BuildPlan) -> BuildPlan:
    """Return the plan with KV budgets in tokens: two engines on one GPU cannot both take a share of what is free."""
    per_token = plan.kv_bytes_per_token + draft.kv_bytes_per_token
    tokens = max(0, plan.kv_bytes - draft.weights_bytes) // per_token
    if tokens < plan.limits.max_seq_len:
        raise PlanInfeasible(
            f"Beside the draft model's weights there is room for {tokens} tokens of both KV caches; one request may"
            f" have {plan.limits.max_seq_len}.",
            hint="Take a smaller draft model, or build with a smaller --max-seq-len.",
        )
    settings = plan.repository
    own = {"max_tokens_in_paged_kv_cache": str(tokens), **settings.parameters.get("tensorrt_llm", {})}
    return dataclasses.replace(
        plan, repository=dataclasses.replace(settings, parameters={**settings.parameters, "tensorrt_llm": own})
    )


def _about(plan: BuildPlan, *, has_draft: bool) -> dict[str, Any]:
    """Return what a launcher, or a later check, wants to know of a repository."""
    instances = plan.repository.instances.get("tensorrt_llm", 1)
    return {
        "release": plan.release.name,
        "flow": plan.flow,
        "ranks": plan.limits.tp * plan.limits.pp,
        "is_orchestrated": has_draft or instances > 1,  # one server and MPI workers: TRTLLM_ORCHESTRATOR=1
    }


def _record(plan: BuildPlan, built: Path, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what `trtk serve` has to know to serve a repository: also what its container must see."""
    about, draft = _about(plan, has_draft=bool(options["draft"])), options["draft"]
    return {
        **about,
        "engine": str(built.absolute()),
        **({"draft": str(draft.absolute())} if draft else {}),
        "mounts": [list(mount) for mount in options["mounted"]],
        "gpus": about["ranks"] * plan.repository.instances.get("tensorrt_llm", 1),
    }


def _show_changes(files: Mapping[str, str], target: Path, *, as_json: bool) -> None:
    before = repository.texts_in(target) if target.is_dir() else {}
    changed = [path for path in sorted(files.keys() | before.keys()) if files.get(path) != before.get(path)]
    lines = [line for path in changed for line in _diff(path, before.get(path), files.get(path))]
    if as_json:
        output.document({"folder": str(target), "changed": changed, "diff": lines})
        return
    for line in lines:
        output.text(line)
    output.note(
        f"{len(changed)} of {len(files)} files of {target} would change." if changed else "Nothing would change."
    )


def _diff(path: str, before: str | None, after: str | None) -> list[str]:
    old, new = ((text or "").splitlines() for text in (before, after))
    names = ("/dev/null" if before is None else f"a/{path}", "/dev/null" if after is None else f"b/{path}")
    return list(difflib.unified_diff(old, new, *names, lineterm="")) or [f"--- {names[0]}", f"+++ {names[1]}"]


def _show(plan: BuildPlan, built: Path, target: Path, files: Mapping[str, str], *, as_json: bool) -> None:
    models = sorted({path.split("/")[0] for path in files})
    about = _about(plan, has_draft="tensorrt_llm_draft" in models)
    if as_json:
        output.document(
            {"folder": str(target), "engine": str(built), "models": models, "files": sorted(files), **about}
        )
        return
    output.text(f"{target} holds {', '.join(models)}, for {plan.release.name}.")
    if about["is_orchestrated"]:
        output.note("Several engines in one server: start Triton with TRTLLM_ORCHESTRATOR=1, and without mpirun.")
    output.text(f"Next: trtk serve {target}" if plan.gpu.is_cpu else f"Next: trtk repo --check {target}")
