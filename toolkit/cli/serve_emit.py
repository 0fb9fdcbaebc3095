"""`trtk serve --emit`: write down for others what `trtk serve` would run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from toolkit.cli import option_names, output
from toolkit.cli.serve_options import added
from toolkit.specs import ServeSpec

F = TypeVar("F", bound=Callable[..., Any])
#: systemd starts again, within its own limits; the rest says how trtk itself is called.
NOT_FOR_UNITS = {"emit", "emit_output", "detach", "dry_run", "restart", "as_json", "print_log", "server_id"}
#: What a unit holds a process of this machine to.
LIMITS_OF_UNITS = {"memory_limit", "cpus"}


def emit_options(command: F) -> F:
    """Add --emit and its file."""
    from toolkit.serve.emitting import KINDS

    return added(
        command,
        (
            click.option(
                "--emit", type=click.Choice(KINDS), help="Start nothing: print a compose file or a systemd unit."
            ),
            click.option(
                "-o", "--output", "emit_output", type=click.Path(path_type=Path), help="File for --emit; stdout."
            ),
        ),
    )


def emit(spec: ServeSpec, options: dict[str, Any], *, as_json: bool) -> None:
    """Print or write what --emit asks for."""
    from toolkit import files
    from toolkit.serve import emitting

    kind, target = options["emit"], options["emit_output"]
    if kind == emitting.COMPOSE:
        text = emitting.compose(spec)
    else:
        is_user = kind == emitting.SYSTEMD_USER
        text = emitting.systemd(spec, command_line(spec), is_user=is_user)
    if target:
        files.write_text(target, text)
        output.note(f"Wrote {target}.")
    if as_json:
        output.document({"kind": kind, "file": str(target) if target else None, "text": text})
    elif not target:
        click.echo(text, nl=False)


def command_line(spec: ServeSpec) -> list[str]:
    """Return this very `trtk serve` in the foreground, with what was said by option, variable or trtk.toml."""
    context = click.get_current_context()
    left_out = NOT_FOR_UNITS | (LIMITS_OF_UNITS if spec.backend != "docker" else set())
    program = Path(sys.executable).with_name("trtk")
    line = [str(program)] if program.is_file() else [sys.executable, "-m", "toolkit.cli"]
    line.append("serve")
    for parameter in context.command.params:
        name, value = parameter.name or "", context.params.get(parameter.name or "")
        if isinstance(parameter, click.Argument):
            values = value if isinstance(value, tuple) else (value,)
            # The unit runs in this folder, and what is newest here may be another one tomorrow.
            line += [str(one) for one in values if one] or [spec.folder or spec.repository]
            continue
        if name in left_out or context.get_parameter_source(name) == click.core.ParameterSource.DEFAULT:
            continue
        line += _words(parameter, value)
    # systemd starts it again, and trtk must not do so as well.
    return [*line, "--restart", "no"]


def _words(parameter: click.Parameter, value: Any) -> list[str]:
    option = f"--{option_names(parameter)[0].replace('_', '-')}"
    if isinstance(parameter, click.Option) and parameter.is_flag:
        return [option] if value else []
    values = value if isinstance(value, tuple) else (value,)
    return [word for one in values for word in (option, str(one))]
