"""Where templates/ is, and the one Jinja2 environment that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def directory() -> Path:
    """The wheel carries templates/ as toolkit/_templates; a checkout has it one level up."""
    packed = Path(__file__).parent / "_templates"
    return packed if packed.is_dir() else Path(__file__).parents[1] / "templates"


def environment(user_templates: Path | None = None) -> jinja2.Environment:
    """Return the environment: the user's folder first, then ours, file by file; an unset name is an error."""
    import jinja2

    folders = [str(path) for path in (user_templates, directory()) if path is not None]
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folders),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # the output is pbtxt, YAML and shell; HTML templates escape with |e
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["pbtxt_string"] = pbtxt_string
    return made


def render(template: str, values: dict[str, Any], *, user_templates: Path | None = None) -> str:
    """Return one rendered template; TEMPLATE is a path below templates/."""
    return environment(user_templates).get_template(template).render(**values)


def pbtxt_string(value: object) -> str:
    """Quote a value as a protobuf text-format string: backslash, quote and line breaks are escaped."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{text}"'


def chat_prompt(template: str, messages: list[dict[str, str]], special_tokens: dict[str, str]) -> str:
    """Return the prompt that a model's own chat template makes of messages.

    The template comes with the weights, so it runs in Jinja2's sandbox: it may compute, and touch nothing.
    """
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    compiled = sandbox.from_string(template)
    return compiled.render(messages=messages, add_generation_prompt=True, **special_tokens)
