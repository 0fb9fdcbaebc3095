"""Write docs/commands.md from the commands' own help; `--check` fails when it is stale."""

import sys
from pathlib import Path

import click

from toolkit.cli import COMMANDS, main

PAGE = Path(__file__).parent / "commands.md"
SETTINGS = {"max_content_width": 100, "terminal_width": 100, "help_option_names": ["-h", "--help"]}


def page() -> str:
    """Return the reference: every command's --help."""
    parts = ["# Commands\n\nWritten by `docs/generate.py` from the commands' own help; do not edit by hand.\n"]
    with click.Context(main, info_name="trtk", **SETTINGS) as root:
        parts.append(f"## trtk\n\n```\n{main.get_help(root)}\n```\n")
        for name in COMMANDS:
            command = main.get_command(root, name)
            with click.Context(command, info_name=name, parent=root, **SETTINGS) as context:
                parts.append(f"## trtk {name}\n\n```\n{command.get_help(context)}\n```\n")
                for part, sub in getattr(command, "commands", {}).items():
                    with click.Context(sub, info_name=part, parent=context, **SETTINGS) as inner:
                        parts.append(f"### trtk {name} {part}\n\n```\n{sub.get_help(inner)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif page() != PAGE.read_text(encoding="utf-8"):
        sys.exit("docs/commands.md is stale: run `python docs/generate.py`.")
