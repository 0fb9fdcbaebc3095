"""trtk quantize."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from toolkit.cli import output
from toolkit.cli.auto_options import auto_options, measure_of, searched, sentence
from toolkit.cli.model_options import conversion_plan, layout_options, need_packages, quantization_options
from toolkit.cli.quality import as_document, bounds_left, bounds_of, judge, need_gates
from toolkit.cli.source_options import facts
from toolkit.specs import ConversionPlan, Evaluation, ModelSource, Progress, QualityGate

EPILOG = output.examples(
    "trtk quantize demo --quant int4 -o checkpoints/demo-int4",
    "trtk quantize ./Llama-3.1-8B-Instruct --quant fp8 --tp 2 --calib texts.jsonl -o checkpoints/llama-fp8-tp2",
    "trtk quantize ./Llama-3.1-8B-Instruct --quant nvfp4 --format hf --exclude '*layers.0.*' -o checkpoints/nvfp4",
)


@click.command(epilog=EPILOG)
@click.argument("model")
@click.option(
    "--quant", required=True, metavar="NAME", help="How; `trtk quants` lists the names. `keep`: as the source is."
)
@click.option("-o", "--output", "folder", required=True, type=click.Path(path_type=Path), help="Folder to make.")
@layout_options
@quantization_options
@auto_options
@output.json_option
def quantize(model: str, folder: Path, as_json: bool, **options: Any) -> None:
    """Quantize MODEL into a checkpoint: TensorRT-LLM's, one file a rank, or the unified Hugging Face layout.

    MODEL is `demo`, a local Hugging Face folder, or a hub id org/name[@revision].
    """
    need_packages("torch", "safetensors", "tokenizers")
    from toolkit import convert, models, plan

    convert.need_device(options["device"])
    started = time.monotonic()
    with output.progress() as progress:
        source = models.locate(model, progress=progress)
        convert.need_replaceable(folder, source)
        converted = conversion_plan(models.read(source), options, source)
        needed = sum(plan.tensors.checkpoint_bytes(converted))
        if converted.auto:  # candidates lie beside the checkpoint until the search ends
            needed *= 3
        measure = measure_of(converted, source, progress)
        is_new = convert.run(converted, source, folder, weights_bytes=needed, progress=progress, measure=measure)
        judged = _judged(folder, converted, source, options, progress)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    duration_s = time.monotonic() - started
    found = searched(folder)
    result = {
        "checkpoint": str(folder),
        "quant": converted.recipe.name,
        "quant_algo": converted.recipe.quant_algo,
        "group_size": converted.group_size,
        "format": converted.layout,
        "tp": converted.sharding.tp,
        "pp": converted.sharding.pp,
        "ep": converted.sharding.ep,
        "kv_cache": converted.kv_cache,
        "exclude": list(converted.exclude),
        "dtype": converted.dtype,
        "model": source.name,
        "revision": source.revision,
        **facts(converted, source),
        "bytes": size,
        "assignment": found,
        "evaluation": as_document(*judged) if judged else None,
        "is_reused": not is_new,
        "duration_s": round(duration_s, 3),
    }
    if as_json:
        output.document(result)
    else:
        what = f"took {duration_s:.1f} s" if is_new else "is already there"
        output.text(f"{folder} {what}: {converted.recipe.name}, {size / 1e6:.1f} MB.")
        if found:
            output.text(sentence(found))
    if judged:
        need_gates(judged[1], folder)


def _judged(
    folder: Path, plan: ConversionPlan, source: ModelSource, options: dict[str, Any], progress: Progress
) -> tuple[Evaluation, tuple[QualityGate, ...]] | None:
    """Return the evaluation that the gates ask for, None where there are none."""
    bounds = bounds_left(plan, bounds_of(options))
    return judge(folder, source, bounds, device=options["device"], progress=progress) if bounds else None
