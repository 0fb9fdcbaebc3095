"""Where templates/ is, and the one Jinja2 environment that reads it."""

from __future__ import annotations

import functools
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import UsageError

if TYPE_CHECKING:
    import jinja2

#: Some templates write today's date; the same prompt must give the same tokens every day.
TEMPLATE_DATE = "01 Jan 2026"


def directory() -> Path:
    """The wheel carries templates/ as toolkit/_templates; a checkout has it one level up."""
    packed = Path(__file__).parent / "_templates"
    return packed if packed.is_dir() else Path(__file__).parents[1] / "templates"


@functools.cache  # and with it the templates that it has compiled
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
    made.filters["yaml_string"] = yaml_string
    made.filters["json"] = json_value
    made.filters["shell"] = shlex.quote
    made.filters["one_line"] = one_line
    made.filters["yaml_lines"] = yaml_lines
    made.filters["hcl"] = hcl_value
    return made


def missing_names() -> type[Exception]:
    """Return what a template raises that is rendered without a name it needs."""
    import jinja2

    return jinja2.UndefinedError


def render(template: str, values: dict[str, Any], *, user_templates: Path | None = None) -> str:
    """Return one rendered template; TEMPLATE is a path below templates/."""
    return environment(user_templates).get_template(template).render(**values)


def pbtxt_string(value: object) -> str:
    """Quote a value as a protobuf text-format string: backslash, quote and line breaks are escaped."""
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
    return f'"{text}"'


def yaml_string(value: object) -> str:
    """Quote a value as a YAML string, with as little escaping as its characters allow."""
    import json

    text = str(value)
    return "'" + text.replace("'", "''") + "'" if text.isprintable() else json.dumps(text)


def source(template: str) -> str:
    """Return a template's text as it is: a script that others run."""
    return (directory() / template).read_text(encoding="utf-8")


def one_line(value: object) -> str:
    """Return a text for a comment: on one line, whatever was in it."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())


def yaml_lines(value: Mapping[str, object]) -> str:
    """Return a flat mapping as YAML lines, its values quoted."""
    return "\n".join(f"{key}: {json_value(each)}" for key, each in value.items())


def json_value(value: object) -> str:
    """Return a value as JSON on one line, which YAML and HCL read as their own; mappings keep their order."""
    import json

    return json.dumps(value, ensure_ascii=False)


def hcl_value(value: object) -> str:
    """Return a value as HCL writes it: JSON's, with no template of its own in a string."""
    return json_value(value).replace("${", "$${").replace("%{", "%%{")


def chat_template(tokenizer_dir: Path) -> tuple[str, dict[str, str]] | None:
    """Return a model's chat template and its special tokens, or None when it has none."""
    import json

    settings_path = tokenizer_dir / "tokenizer_config.json"
    settings = json.loads(settings_path.read_text(encoding="utf-8")) if settings_path.is_file() else {}
    own = tokenizer_dir / "chat_template.jinja"
    template = own.read_text(encoding="utf-8") if own.is_file() else settings.get("chat_template")
    special = {name: _token(value) for name, value in settings.items() if name.endswith("_token") and value}
    return (template, special) if isinstance(template, str) else None


def chat_prompt(template: str, messages: list[dict[str, str]], special_tokens: dict[str, str]) -> str:
    """Return the prompt that a model's own chat template makes of messages; raises UsageError where it refuses them.

    The template comes with the weights, so it runs in Jinja2's sandbox: it may compute, and touch nothing.
    """
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    sandbox = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    sandbox.globals |= {"raise_exception": _refuse, "strftime_now": lambda _format: TEMPLATE_DATE}
    try:
        made = sandbox.from_string(template)
        return made.render(messages=messages, add_generation_prompt=True, **special_tokens)
    except jinja2.TemplateError as error:
        raise UsageError(f"The model's chat template refuses these messages: {error}.") from error


def _refuse(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _token(value: Any) -> str:
    """A special token is a string, or an AddedToken as a dict."""
    return str(value["content"] if isinstance(value, dict) else value)
