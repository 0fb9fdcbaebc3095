"""The command line: one file per command, loaded only when it is asked for."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from toolkit import __version__
from toolkit.errors import TrtkError

#: In the order of the main job; each is a module of this package with a Click command of the same name.
COMMANDS = {
    "quickstart": "Run the whole job on a real small model with no GPU.",
    "plan": "Say whether a model fits, how fast it is, what it costs, which card to rent.",
    "gpus": "List the GPUs that trtk knows.",
    "quants": "List quantizations and where each one runs.",
    "releases": "List Triton releases and what is in them.",
    "models": "List the model families that trtk converts.",
    "quantize": "Quantize a model into a TensorRT-LLM checkpoint.",
    "eval": "Measure what quantization cost a model.",
    "build": "Quantize, compile and make a Triton repository.",
    "repo": "Write a Triton repository alone, or check one.",
    "bundle": "Pack what `build` made into one file.",
    "migrate": "Carry an engine deployment over to the LLM API.",
    "serve": "Start Triton on what `build` made.",
    "status": "Show the servers that trtk started.",
    "top": "Show what the servers do, live.",
    "monitoring": "Write what Prometheus and Grafana need.",
    "ps": "Show a pool's models: what each takes and does.",
    "logs": "Show a server's log.",
    "stop": "Stop servers and leave nothing behind.",
    "keys": "Make and take back API keys.",
    "audit": "Verify and read an audit log.",
    "infer": "Ask a server one thing.",
    "chat": "Talk with what is served.",
    "bench": "Load-test a server and write a report.",
    "report": "Put load tests on one page.",
    "compare": "Say what changed between two load tests.",
    "calibrate": "Measure what this card reaches, for every plan after.",
    "deploy": "Hand over to a cluster or another machine.",
    "doctor": "Look at what this machine can do, and what to install.",
    "cache": "Show and clear what builds have in common.",
}

DEBUG_VARIABLE = "TRTK_DEBUG"


class Commands(click.Group):
    """Load a command when it is named; turn a TrtkError into a message, a hint and an exit code; let bugs crash."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - Click's signature
        """Return the commands in the order of the main job."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"toolkit.cli.{cmd_name}"), cmd_name)
        for parameter in command.params:  # by the option's name: Click's own variable is named after the Python one
            if isinstance(parameter, click.Option) and parameter.envvar is None:
                parameter.envvar = [f"TRTK_{cmd_name}_{name}".upper() for name in option_names(parameter)]
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest command when there is none of that name."""
        from toolkit.errors import UnknownName

        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            raise UnknownName("command", name, COMMANDS, command="trtk --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; errors end here."""
        try:
            return super().invoke(ctx)
        except TrtkError as error:
            if os.environ.get(DEBUG_VARIABLE):
                raise
            click.echo(f"Error: {error}", err=True)
            if error.hint:
                click.echo(f"Hint: {error.hint}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            ctx.exit(130)


def defaults_from_file() -> dict[str, Any]:
    """Return trtk.toml of the working folder as it is: a table per command, option names with dashes."""
    from pathlib import Path

    path = Path("trtk.toml")
    if not path.is_file():
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    from toolkit.errors import UnknownName, UsageError

    try:
        document: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"trtk.toml is not TOML: {error}.", hint="Mend it, or move it away.") from error
    for table, options in document.items():
        if table not in COMMANDS:
            raise UnknownName("command for trtk.toml's entry", table, COMMANDS, command="trtk --help")
        if not isinstance(options, dict):
            raise UsageError(f"trtk.toml's {table!r} is no table.", hint=f"Write [{table}] and its options below it.")
    return document


def option_names(parameter: click.Parameter) -> list[str]:
    """Return a parameter's long names as they are in variables and Python: `max_seq_len` of `--max-seq-len`."""
    named = [name.removeprefix("--") for name in parameter.opts if not name.startswith("-") or name.startswith("--")]
    return [name.replace("-", "_") for name in named]


def values_by_parameter(command: click.Command, name: str, table: dict[str, Any]) -> dict[str, Any]:
    """Return a table of trtk.toml as Click wants it, by Python names; an option that NAME does not have is an error."""
    from toolkit.errors import UnknownName

    parameters = {option: parameter.name or "" for parameter in command.params for option in option_names(parameter)}
    for option in table:
        if option.replace("-", "_") not in parameters:
            known = [known.replace("_", "-") for known in parameters]
            raise UnknownName(f"option of `trtk {name}` for trtk.toml's [{name}]", option, known)
    return {parameters[option.replace("-", "_")]: value for option, value in table.items()}


@click.group(cls=Commands, context_settings={"auto_envvar_prefix": "TRTK", "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="trtk")
@click.pass_context
def main(ctx: click.Context) -> None:
    """From Hugging Face weights to a measured, costed, running Triton service.

    \b
    trtk build meta-llama/Llama-3.1-8B-Instruct --gpu a4500 --quant int4
    trtk serve
    trtk bench
    """
    # torch's threads spin while they wait for each other: beside any other work on the machine that costs several times
    # the time. Read when torch is loaded, which is later than this.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    name, tables = ctx.invoked_subcommand or "", defaults_from_file()
    command = main.get_command(ctx, name)
    if command and name in tables:
        ctx.default_map = {name: values_by_parameter(command, name, tables[name])}
