"""Options that quantize and build share, and the nouns they become."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from toolkit.specs import CalibrationSpec, ConversionPlan, ModelSource, ModelSpec, Sharding

F = TypeVar("F", bound=Callable[..., Any])

#: Tokens that calibration reads when the user says nothing: enough for stable statistics on the demo model, and the
#: model writes them itself in seconds.
SELF_SAMPLES, SELF_LENGTH = 32, 128
FILE_SAMPLES, FILE_LENGTH = 16, 512
MAX_SEED = 2**63 - 1  # of torch's generator


def quantization_options(command: F) -> F:
    """Add the options that say how a checkpoint is made."""
    for option in reversed(
        (
            click.option("--group-size", type=click.IntRange(min=1), help="Weights per scale; 128 where it divides."),
            click.option(
                "--dtype",
                type=click.Choice(["float16", "bfloat16"]),
                help="Of what is not quantized; float16, except for bf16.",
            ),
            click.option(
                "--calib",
                default="self",
                show_default=True,
                metavar="self|FILE|hf:NAME",
                help="Calibration text: the model's own, a text, JSONL or Parquet file, or a hub data set "
                "hf:NAME[@revision][:split][:column].",
            ),
            click.option("--calib-samples", type=click.IntRange(min=1), help="Pieces of calibration text."),
            click.option("--calib-length", type=click.IntRange(min=8), help="Tokens of each piece."),
            click.option(
                "--seed",
                type=click.IntRange(0, MAX_SEED),
                default=0,
                show_default=True,
                help="Of self-written calibration text.",
            ),
            click.option(
                "--kv-cache",
                type=click.Choice(["auto", "none", "fp8", "int8"]),
                default="auto",
                show_default=True,
                help="How keys and values are cached; none keeps them in 16 bits.",
            ),
            click.option(
                "--exclude",
                multiple=True,
                metavar="PATTERN",
                help="Modules that stay in 16 bits, such as '*.mlp.proj' or '*layers.0.*'; may be repeated.",
            ),
            click.option(
                "--device",
                type=click.Choice(["cpu", "cuda"]),
                default="cpu",
                show_default=True,
                help="Where to compute.",
            ),
        )
    ):
        command = option(command)
    return command


def layout_options(command: F) -> F:
    """Add the options of a checkpoint that is made for its own sake: its layout, and its ranks."""
    for option in reversed(
        (
            click.option(
                "--format",
                "layout",
                type=click.Choice(["trtllm", "hf"]),
                default="trtllm",
                show_default=True,
                help="TensorRT-LLM checkpoint, or unified Hugging Face checkpoint.",
            ),
            click.option("--tp", type=click.IntRange(min=1), default=1, help="Ranks that share each layer."),
            click.option("--pp", type=click.IntRange(min=1), default=1, help="Ranks that take the layers in turn."),
            click.option("--ep", type=click.IntRange(min=1), default=1, help="Of --tp, ranks that share out experts."),
        )
    ):
        command = option(command)
    return command


def conversion_plan(model: ModelSpec, options: dict[str, Any], source: ModelSource) -> ConversionPlan:
    """Return the ConversionPlan that the options ask for, and say what the user would not expect."""
    from toolkit import convert, plan
    from toolkit.cli import auto_options, output, source_options

    auto = auto_options.auto_of(options)
    found = convert.survey_of(source, model)
    recipe = (
        plan.mixed.recipe_of(auto)
        if auto
        else source_options.recipe_of(options["quant"], found, options.get("layout", "trtllm"))
    )
    own_groups = None if options["group_size"] else source_options.group_size_of(recipe, found)
    is_kept = options["quant"] == source_options.KEEP
    asked = plan.AskedCheckpoint(
        group_size=options["group_size"] or own_groups,
        dtype=options["dtype"],
        device=options["device"],
        layout=options.get("layout", "trtllm"),
        sharding=Sharding(**{name: options.get(name, 1) for name in ("tp", "pp", "ep")}),
        kv_cache="none" if is_kept and options["kv_cache"] == "auto" else options["kv_cache"],
        exclude=options["exclude"],
    )
    is_calibrated = recipe.needs_calibration or asked.kv_cache == "int8"
    made = plan.conversion(
        model, recipe, asked=asked, calibration=_calibration(model, options) if is_calibrated else None, auto=auto
    )
    made = dataclasses.replace(made, is_source_kept=is_kept)
    if found:
        output.note(source_options.sentence(convert.outlook_of(made, source), made))
    for choice in made.choices:
        if choice.name == "group_size" and made.group_size != recipe.default_group_size:
            output.note(f"Group size {choice.value}: {'as the source has it' if own_groups else choice.reason}.")
        if choice.name == "kv_cache" and made.kv_cache != asked.kv_cache and made.kv_cache:
            output.note(f"KV cache {choice.value}: {choice.reason}.")
        if choice.name == "format":
            output.note(f"--format {choice.value}: {choice.reason}.")
    return made


def _calibration(model: ModelSpec, options: dict[str, Any]) -> CalibrationSpec:
    from toolkit.errors import UsageError
    from toolkit.files import sha256_file
    from toolkit.models import hub_text

    source = options["calib"]
    is_self, is_hub = source == "self", source.startswith(hub_text.PREFIX)
    if not is_self and not is_hub and not Path(source).is_file():
        raise UsageError(
            f"There is no calibration file {source}.", hint="--calib takes `self`, a file or hf:NAME of a hub data set."
        )
    longest = model.max_position_embeddings
    length = options["calib_length"] or min(SELF_LENGTH if is_self else FILE_LENGTH, longest)
    if length > longest:
        raise UsageError(
            f"--calib-length {length} is beyond the model's {longest} positions.",
            hint=f"Try --calib-length {longest}.",
        )
    return CalibrationSpec(
        source=hub_text.pinned(source) if is_hub else source,
        text_sha256=None if is_self or is_hub else sha256_file(Path(source)),
        samples=options["calib_samples"] or (SELF_SAMPLES if is_self else FILE_SAMPLES),
        length=length,
        seed=options["seed"],
    )


def need_packages(*names: str) -> None:
    """Raise MissingError before any work when a package of an extra is not installed."""
    import importlib.util

    from toolkit.errors import MissingError

    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingError(f"This needs {', '.join(missing)}, which is not installed.", hint="pip install 'trtk[cpu]'")
