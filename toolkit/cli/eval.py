"""trtk eval."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from toolkit.cli import output
from toolkit.cli.model_options import need_packages
from toolkit.cli.quality import as_document, bounds_of, gate_options, need_gates, verdict
from toolkit.specs import Evaluation, QualityGate

EPILOG = output.examples(
    "trtk eval checkpoints/demo-int4 --model demo",
    "trtk eval engines/demo-cpu-int4 --model demo --text held-out.txt --max-kl 0.2 --max-ppl-increase 10",
)


@click.command("eval", epilog=EPILOG)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--model", required=True, metavar="MODEL", help="What the checkpoint was made from.")
@click.option(
    "--text",
    type=click.Path(exists=True, dir_okay=False),
    help="Text or JSONL file that nothing was calibrated on; a bundled text when not given.",
)
@gate_options
@click.option("--rows", type=click.IntRange(min=1), help="Pieces of text; as many as there are.")
@click.option("--length", type=click.IntRange(min=16), help="Tokens of each piece; 512 where there are as many.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="Where to compute."
)
@output.json_option
def eval(checkpoint: Path, model: str, as_json: bool, **options: Any) -> None:
    """Compare CHECKPOINT with the MODEL it was made from: perplexity, KL divergence, top-1 agreement.

    CHECKPOINT is a folder of `trtk quantize` or `trtk build`, or ModelOpt's export. Both models run layer by layer on
    the same text, the checkpoint in the arithmetic of its own formats.
    """
    need_packages("torch", "safetensors", "tokenizers")
    from toolkit import evaluate, models

    started = time.monotonic()
    text = evaluate.TextSpec(path=options["text"], rows=options["rows"], length=options["length"])
    with output.progress() as progress:
        source = models.locate(model, progress=progress)
        found = evaluate.run(checkpoint, source, text, device=options["device"], progress=progress)
    gates = bounds_of(options).gates(found)
    if as_json:
        about = {"checkpoint": str(checkpoint), "model": source.name, "text": options["text"] or "bundled"}
        output.document({**about, **as_document(found, gates), "duration_s": round(time.monotonic() - started, 3)})
    else:
        show(found, gates)
    need_gates(gates, checkpoint)


def show(found: Evaluation, gates: tuple[QualityGate, ...]) -> None:
    """Show where quality is lost, and how much in all."""
    names = list(dict.fromkeys(group for layer in found.layers for group in layer.groups))
    columns = ["layer", "behind it", *map(_column, names)]
    rows = [
        (layer.layer, f"{layer.hidden:.2%}", *(_cell(layer.groups, name) for name in names)) for layer in found.layers
    ]
    output.table("Relative error: hidden states, outputs of linears", columns, rows, right=columns)
    figures = [
        ("perplexity", f"{found.ppl:.3f}", f"original {found.ppl_base:.3f}, {found.ppl_increase_pct:+.2f}%"),
        ("KL divergence", f"{found.kl:.4f}", "nats per token"),
        ("top-1 agreement", f"{found.top1:.2%}", f"of {found.tokens} tokens"),
        *((f"gate {gate.name}", verdict(gate), f"{gate.value:.4g}, at most {gate.limit:g}") for gate in gates),
    ]
    output.table("Against the original", ["figure", "value", ""], figures)


def _column(group: str) -> str:
    return group.removeprefix("attention.").replace("mlp.shared_expert.", "shared ")


def _cell(groups: Any, name: str) -> str:
    return f"{groups[name]:.2%}" if name in groups else ""
