"""`trtk repo --check` and `--parameters`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit import engine, releases, repository
from toolkit.cli import output, repositories
from toolkit.errors import BuildError, UsageError
from toolkit.repository import Result, Surroundings, parameters
from toolkit.specs import BuildPlan, Release, ServeSpec, from_json

PORTS = ("http_port", "grpc_port", "metrics_port")
#: Kinds of models that have parameters → how they are called.
ROLES = {
    "tensorrt_llm": "tensorrt_llm",
    "openvino": "tensorrt_llm, CPU",
    "preprocessing": "preprocessing",
    "postprocessing": "postprocessing",
    "tensorrt_llm_bls": "tensorrt_llm_bls",
}


def run(folder: Path, tag: str | None, options: Mapping[str, Any], *, as_json: bool) -> None:
    """Check a repository, say what was found, and raise BuildError where something is wrong."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.", hint="Give a model repository: trtk repo --check PATH")
    if (folder / engine.MANIFEST).is_file() and (folder / engine.REPOSITORY).is_dir():
        folder /= engine.REPOSITORY  # a built folder means its repository
    plan = _plan_beside(folder)
    release = _release_of(folder, plan, tag)
    results = repository.examine(folder, _surroundings(plan, release, options))
    problems = [problem for result in results for problem in result.problems]
    if as_json:
        output.document(_document(folder, release, results))
    else:
        _show(folder, release, results)
    if problems:
        count = f"{len(problems)} problems" if len(problems) > 1 else "one problem"
        raise BuildError(
            f"{folder} has {count}.", hint="`trtk repo ENGINE -o FOLDER` writes a right one of what `trtk build` made."
        )


def _plan_beside(folder: Path) -> BuildPlan | None:
    """Return the plan of the built folder that a repository lies in."""
    manifest = engine.manifest_of(folder.absolute().parent)
    if manifest is None or manifest.kind == "checkpoint":
        return None
    try:
        return from_json(BuildPlan, manifest.plan)
    except TypeError:  # written by another version
        return None


def _release_of(folder: Path, plan: BuildPlan | None, tag: str | None) -> Release:
    if tag:
        return releases.get(tag)
    about = repository.record_of(folder).get("about")
    if isinstance(about, dict) and about.get("release"):
        return releases.get(str(about["release"]))
    return plan.release if plan else releases.default()


def _surroundings(plan: BuildPlan | None, release: Release, options: Mapping[str, Any]) -> Surroundings:
    ports = {f"--{name.replace('_', '-')}": options[name] for name in PORTS if options[name]}
    return Surroundings(
        tensorrt_llm=release.tensorrt_llm,
        api=releases.llm_api_of(release),
        engine=repositories.engine_facts(plan) if plan and plan.flow == "engine" else None,
        mounts=options["mounted"],
        ports=ports,
        busy_ports=_busy({name: options[name] for name in PORTS if options[name]}),
    )


def _busy(asked: Mapping[str, int]) -> dict[str, str]:
    """Return the ports that something else listens on, each with a sentence."""
    from toolkit.serve import ports

    spec = ServeSpec(
        name="",
        repository="",
        backend="",
        http_port=asked.get("http_port", 8000),
        grpc_port=asked.get("grpc_port", 8001),
        metrics_port=asked.get("metrics_port", 8002),
    )
    freed = ports.free_from(spec)
    busy = [name for name in asked if getattr(freed, name) != getattr(spec, name)]
    return {f"--{name.replace('_', '-')}": str(ports.busy(spec, asked[name])) for name in busy}


def _document(folder: Path, release: Release, results: list[Result]) -> dict[str, Any]:
    return {
        "folder": str(folder),
        "release": release.name,
        "tensorrt_llm": release.tensorrt_llm,
        "is_right": not any(result.problems for result in results),
        "checks": [
            {
                "number": result.number,
                "name": result.name,
                "title": result.title,
                "problems": list(result.problems),
                "left_out": result.left_out or None,
            }
            for result in results
        ],
    }


def _show(folder: Path, release: Release, results: list[Result]) -> None:
    rows = [(result.number, result.title, _verdict(result)) for result in results]
    title = f"{folder} for {release.name} (TensorRT-LLM {release.tensorrt_llm})"
    output.table(title, ["", "check", "result"], rows, right=[""])
    for result in results:
        for problem in result.problems:
            output.text(f"{result.number:>2}  {problem}")
    for result in results:
        if result.left_out:
            output.note(f"Not checked ({result.number}): {result.left_out}.")


def _verdict(result: Result) -> str:
    if result.problems:
        return f"{len(result.problems)} wrong"
    return "right as far as seen" if result.left_out else "right"


def show_parameters(tag: str | None, *, as_json: bool) -> None:
    """List every parameter that a release knows."""
    release = releases.get(tag) if tag else releases.default()
    version = release.tensorrt_llm
    if as_json:
        models = {role: parameters.as_json(role, version) for role in ROLES}
        api = releases.llm_api_of(release)
        keys = {key: {"takes": kind} for key, kind in api.keys.items()} if api else {}
        output.document({"release": release.name, "tensorrt_llm": version, "models": models, "llm_api": keys})
        return
    for role, title in ROLES.items():
        rows = [(key, _said(one)) for key, one in parameters.as_json(role, version).items()]
        output.table(f"{title}, TensorRT-LLM {version}", ["parameter", "meaning"], rows)


def _said(one: Mapping[str, str]) -> str:
    """Return a parameter in words, in one cell: names must not be broken at 80 columns."""
    takes = f"set by {one['set_by']}" if one["set_by"] else one["takes"]
    return f"{one['meaning']} ({takes}{'; ' + one['default'] if one['default'] else ''})"
