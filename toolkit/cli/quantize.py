"""trtk quantize."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from toolkit.cli import output
from toolkit.cli.model_options import conversion_plan, need_packages, quantization_options

EPILOG = output.examples(
    "trtk quantize demo --quant int4 -o checkpoints/demo-int4",
    "trtk quantize ./Llama-3.1-8B-Instruct --quant fp8 --calib texts.jsonl -o checkpoints/llama-fp8",
)


@click.command(epilog=EPILOG)
@click.argument("model")
@click.option("--quant", required=True, metavar="NAME", help="How to quantize; `trtk quants` lists the names.")
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@quantization_options
@output.json_option
def quantize(model: str, folder: Path, as_json: bool, **options: Any) -> None:
    """Quantize MODEL into a TensorRT-LLM checkpoint: config.json and rank0.safetensors.

    MODEL is `demo`, a local Hugging Face folder, or a hub id org/name[@revision].
    """
    need_packages("torch", "safetensors", "tokenizers")
    from toolkit import convert, models, plan

    started = time.monotonic()
    with output.progress() as progress:
        source = models.locate(model, progress=progress)
        converted = conversion_plan(models.read(source), options)
        needed = plan.memory.checkpoint_bytes(converted.model, converted.recipe, converted.group_size)
        is_new = convert.run(converted, source, folder, weights_bytes=needed, progress=progress)
    size, duration_s = (folder / "rank0.safetensors").stat().st_size, time.monotonic() - started
    result = {
        "checkpoint": str(folder),
        "quant": converted.recipe.name,
        "quant_algo": converted.recipe.quant_algo,
        "group_size": converted.group_size,
        "dtype": converted.dtype,
        "model": source.name,
        "revision": source.revision,
        "bytes": size,
        "is_reused": not is_new,
        "duration_s": round(duration_s, 3),
    }
    if as_json:
        output.document(result)
        return
    what = f"took {duration_s:.1f} s" if is_new else "is already there"
    output.text(f"{folder} {what}: {converted.recipe.name}, {size / 1e6:.1f} MB.")
