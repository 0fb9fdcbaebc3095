"""Which builder compiles the engine, and what it may use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.cli.amounts import MEMORY_BYTES, amount
from toolkit.specs import BuildPlan

if TYPE_CHECKING:
    from toolkit.engine import BuildJob
    from toolkit.specs.machine import BuildHost

F = TypeVar("F", bound=Callable[..., Any])
BUILDERS = ("auto", "docker", "local", "defer")
AUTO = "auto"


def builder_options(command: F) -> F:
    """Add the options of the builder."""
    for option in reversed(
        (
            click.option(
                "--builder",
                type=click.Choice(BUILDERS),
                default=AUTO,
                show_default=True,
                help="docker: in the release's image; local: with trtllm-build on PATH; defer: on the target.",
            ),
            click.option("--image", metavar="NAME", help="Image that compiles, by tag or digest; the release's own."),
            click.option(
                "--builder-memory",
                metavar="SIZE",
                callback=_memory_bytes,
                help="Memory the compiling container may use, such as 64g; 90 % of the machine's.",
            ),
        )
    ):
        command = option(command)
    return command


def _memory_bytes(_context: click.Context, _option: click.Parameter, text: str | None) -> int:
    return amount("--builder-memory", text, MEMORY_BYTES, example="64g") or 0


def assigned(made: BuildPlan, options: dict[str, Any]) -> tuple[BuildPlan, BuildJob | None]:
    """Return the plan with its builder decided by what this machine has, and the builder's job."""
    from toolkit import engine, plan, workspace
    from toolkit.engine.builder import choose

    if not engine.toolchain(made.toolchain).needs_builder:
        _need_no_builder(made, options)
        return made, None
    host = look_at_host(options["builder"])
    choice = choose(made, host, asked=options["builder"])
    job = engine.BuildJob(
        folder=Path(),  # where the build works, which it decides itself
        host=host,
        timing_caches=workspace.cache_dir() / "timing",
        image=options["image"] or "",
        memory_bytes=options["builder_memory"],
    )
    return plan.with_builder(made, choice), job


def look_at_host(asked: str) -> BuildHost:
    """Return what this machine has to build with; nothing is looked for that is not asked for."""
    from toolkit import machine
    from toolkit.engine import local_trtllm
    from toolkit.specs.machine import BuildHost

    if asked == "defer":
        return BuildHost()
    found = machine.look()
    program, version = local_trtllm.find() if asked in {AUTO, "local"} else ("", "")
    return BuildHost(
        gpus=found.gpus,
        gpu_fault=found.fault,
        docker_fault=_docker_fault(asked) if found.gpus and asked in {AUTO, "docker"} else "",
        trtllm_build=program,
        trtllm_version=version,
    )


def _docker_fault(asked: str) -> str:
    from toolkit import machine

    found = machine.look_at_docker()
    # How a daemon hands out GPUs is not always told: one that was asked for is tried.
    if not found.fault and asked == AUTO and not found.has_nvidia:
        return f"Docker {found.version} cannot give GPUs to containers; `trtk doctor` says what to do"
    return found.fault


def _need_no_builder(made: BuildPlan, options: dict[str, Any]) -> None:
    """Refuse options of a builder where nothing is left to build."""
    from toolkit.errors import UsageError

    asked = [name for name in ("image", "builder_memory") if options[name]]
    if options["builder"] != AUTO:
        asked.insert(0, "builder")
    if asked:
        named = ", ".join(f"--{name.replace('_', '-')}" for name in asked)
        raise UsageError(
            f"{named} is for engines that trtllm-build compiles; the {made.flow} flow needs no builder.",
            hint=f"Leave {named} out.",
        )
