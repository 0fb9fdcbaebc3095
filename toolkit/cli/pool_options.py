"""Options of `trtk serve` for several models on one device, and the pool that they ask for."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from toolkit.cli import output
from toolkit.cli.amounts import MEMORY_BYTES, TIME_S, amount
from toolkit.cli.serve_options import added

if TYPE_CHECKING:
    from toolkit.pool import PoolConfig, PooledModel, Source
    from toolkit.serve.targets import Target
    from toolkit.specs import BuildPlan, Progress, ServeSpec

F = TypeVar("F", bound=Callable[..., Any])
NEED_MEMORY = ("pin", "kv_tokens")
NAMED = re.compile(r"(?P<name>[^/=]+)=(?P<path>.+)")
MIB = 1 << 20


def pool_options(command: F) -> F:
    """Add the options of several models on one device."""
    return added(
        command,
        (
            click.option(
                "--memory", metavar="SIZE", callback=_memory, help="Several models: load them on demand, within this."
            ),
            click.option("--pin", multiple=True, metavar="NAME", help="Keep a model loaded; more than once."),
            click.option(
                "--kv-tokens",
                multiple=True,
                metavar="[NAME=]N",
                help="Tokens of each model's KV cache; from its plan.",
            ),
            click.option(
                "--min-residency",
                default="30s",
                show_default=True,
                metavar="TIME",
                callback=_seconds,
                help="A loaded model stays for so long at least.",
            ),
            click.option(
                "--queue",
                type=click.IntRange(min=1),
                default=64,
                show_default=True,
                help="Requests of each key that may wait for each model.",
            ),
            click.option(
                "--queue-timeout",
                default="60s",
                show_default=True,
                metavar="TIME",
                callback=_seconds,
                help="Longest wait for a model.",
            ),
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A pool that fits: what its server is, and the files of its one repository."""

    target: Target
    config: PoolConfig
    files: Mapping[str, str]

    def write(self) -> None:
        """Write the repository; the caller has the name of its server."""
        from toolkit import repository

        repository.write(self.files, Path(self.config.repository), is_forced=True)

    def server(self, spec: ServeSpec) -> ServeSpec:
        """Return the server as a pool's: nothing is loaded when it starts."""
        leftovers = (*spec.leftovers, self.config.repository)  # the journal stays
        return dataclasses.replace(spec, is_pool=True, probe_model="", backend="embedded", leftovers=leftovers)

    def show(self, *, as_json: bool) -> None:
        """Say what each model takes; what --dry-run prints."""
        from toolkit.pool import sizes_bytes
        from toolkit.specs import to_json

        if as_json:
            output.document({"pool": to_json(self.config), "sizes_bytes": sizes_bytes(self.config)})
            return
        sizes = sizes_bytes(self.config)
        columns = ("model", "takes MiB", "weights", "KV cache", "KV tokens", "activations", "processes", "pinned")
        rows = [
            (
                one.name,
                sizes[one.name] // MIB,
                one.size.weights_bytes // MIB,
                one.size.kv_bytes // MIB,
                one.kv_tokens,
                one.size.activation_bytes // MIB,
                one.size.runtime_bytes // MIB,
                "yes" if one.is_pinned else "",
            )
            for one in self.config.models
        ]
        output.table(f"Within {self.config.memory_bytes // MIB} MiB", columns, rows, right=columns[1:7])


def planned(engines: Sequence[Path], options: dict[str, Any], progress: Progress) -> Planned | None:
    """Return the pool that is asked for; None where one model is to be served as it is."""
    from toolkit.errors import UsageError

    if options["memory"] is None and len(engines) < 2:
        if asked := [name for name in NEED_MEMORY if options[name]]:
            named = " and ".join(f"--{name.replace('_', '-')}" for name in asked)
            raise UsageError(f"{named} is for several models on one device.", hint="Add --memory, such as 12GiB.")
        return None
    if not engines:
        raise UsageError("--memory needs the models to be named.", hint="trtk serve engines/a engines/b --memory 12GiB")
    _need_embedded(options)
    _warn_of_more_than_there_is(options["memory"] or 0)
    parts = _parts(engines, options, progress)
    need_known_names(options, [source.name for source, *_ in parts])
    name = options["name"] or "pool"
    config = _config(name, parts, options)
    return _combined(name, config, [source for source, *_ in parts])


def _combined(name: str, config: PoolConfig, sources: Sequence[Source]) -> Planned:
    from toolkit import pool
    from toolkit.serve.targets import Target
    from toolkit.specs import to_json

    pool.need_distinct(sources)
    pool.need_to_fit(config)
    target = Target(name=name, repository=Path(config.repository), probe_model="", pool=to_json(config))
    return Planned(target=target, config=config, files=pool.combined(sources))


def _config(name: str, parts: Sequence[tuple[Source, BuildPlan, str]], options: dict[str, Any]) -> PoolConfig:
    from toolkit.errors import UsageError
    from toolkit.pool import PoolConfig

    models = tuple(_model(*part, is_pinned=part[0].name in options["pin"]) for part in parts)
    folder = folder_of(name)
    if options["memory"] is None:
        total = sum(model.size.total_bytes for model in models)
        raise UsageError(
            f"{len(models)} models on one device need a limit.", hint=f"--memory {-(-total // MIB)}MiB holds them all."
        )
    return PoolConfig(
        models=models,
        memory_bytes=options["memory"],
        repository=str(folder / "model_repository"),
        journal=str(folder / "journal.jsonl"),
        snapshot=str(folder / "snapshot.json"),
        created=int(time.time()),
        min_residency_s=options["min_residency"],
        queue=options["queue"],
        queue_timeout_s=options["queue_timeout"],
    )


def folder_of(name: str) -> Path:
    """Return where a pool keeps its repository, its journal and its snapshot."""
    from toolkit import workspace

    return (workspace.state_dir() / "pools" / workspace.slug(name)).absolute()


def _parts(engines: Sequence[Path], options: dict[str, Any], progress: Progress) -> list[tuple[Source, BuildPlan, str]]:
    """Return every model's repository, plan and the hash of what was built."""
    from toolkit import files
    from toolkit.errors import UsageError
    from toolkit.pool import Source, kv_tokens_of
    from toolkit.serve import targets
    from toolkit.specs import manifest_from_json

    found = []
    for engine in engines:
        name, folder = _named(engine)
        target = targets.find(folder, is_verified=not options["no_verify"], progress=progress)
        if target.artefact is None:
            raise UsageError(
                f"{folder} has no manifest, and without one nobody knows what it takes.", hint="`trtk build` makes one."
            )
        if not target.artefact.is_for_cpu:
            raise UsageError(
                f"{folder} is for {target.artefact.gpu}; a pool serves CPU engines only, so far.",
                hint="Serve it alone: its container has no model control that a pool could use.",
            )
        path = target.artefact.folder / targets.MANIFEST
        plan = _plan(manifest_from_json(json.loads(path.read_text(encoding="utf-8"))).plan)
        name = name or target.name
        kv_tokens = _kv_tokens(name, options["kv_tokens"]) or kv_tokens_of(plan)
        source = Source(name=name, repository=target.repository, kv_tokens=kv_tokens)
        found.append((source, plan, files.sha256_file(path)))
    return found


def _plan(document: Mapping[str, Any]) -> BuildPlan:
    from toolkit import specs

    return specs.from_json(specs.BuildPlan, document)


def _model(source: Source, plan: BuildPlan, artefact: str, *, is_pinned: bool) -> PooledModel:
    from toolkit import pool
    from toolkit.plan import memory

    model = plan.conversion.model
    size = pool.size_of(
        plan,
        kv_tokens=source.kv_tokens,
        activation_bytes=memory.activation_bytes(model, plan.limits),
        runtime_bytes=memory.RUNTIME_BYTES,
    )
    return pool.PooledModel(
        name=source.name,
        parts=pool.parts_of(source),
        loaded=pool.loaded_of(source),
        artefact=artefact,
        kv_tokens=source.kv_tokens,
        kv_bytes_per_token=plan.kv_bytes_per_token,
        size=size,
        is_pinned=is_pinned,
    )


def _named(engine: Path) -> tuple[str, Path]:
    """Read NAME=FOLDER; a folder of just that name wins."""
    found = NAMED.fullmatch(str(engine))
    if found is None or engine.exists():
        return "", engine
    return found["name"], Path(found["path"])


def _kv_tokens(name: str, asked: Sequence[str]) -> int:
    """Return the tokens asked for by name, else for all; 0 where none are."""
    from toolkit.errors import UsageError

    chosen = 0
    for text in sorted(asked, key=lambda text: "=" in text):
        owner, _, number = text.rpartition("=")
        if not number.isdigit() or int(number) < 1:
            raise UsageError(f"--kv-tokens {text!r} is no number of tokens.", hint="--kv-tokens 16384")
        if owner in {"", name}:
            chosen = int(number)
    return chosen


def need_known_names(options: dict[str, Any], names: Sequence[str]) -> None:
    """Raise where an option names a model that is not served."""
    from toolkit.errors import UnknownName

    owners = [text.rpartition("=")[0] for text in options["kv_tokens"] if "=" in text]
    for name in (*options["pin"], *owners):
        if name not in names:
            raise UnknownName("model of this pool", name, names)


def _need_embedded(options: dict[str, Any]) -> None:
    from toolkit.errors import UsageError

    if options["backend"] not in {"auto", "embedded"}:
        raise UsageError(
            f"--memory serves several models with the embedded backend, not with {options['backend']}.",
            hint="Leave --backend out, or serve one engine.",
        )


def _warn_of_more_than_there_is(memory_bytes: int) -> None:
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if memory_bytes > there:
        output.warn(f"--memory is {memory_bytes // MIB} MiB, and this machine has {there // MIB} MiB.")


def _memory(_context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    return amount(option.opts[0], text, MEMORY_BYTES, example="12GiB")


def _seconds(_context: click.Context, option: click.Parameter, text: str) -> float:
    return float(amount(option.opts[0], text, TIME_S | {"": 1}, example="30s") or 0)
