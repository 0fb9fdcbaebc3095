"""trtk eval."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from toolkit.cli import output
from toolkit.cli.model_options import need_packages
from toolkit.specs import Evaluation, QualityGate

EPILOG = output.examples(
    "trtk eval checkpoints/demo-int4 --model demo",
    "trtk eval engines/demo-cpu-int4 --model demo --text held-out.txt --max-kl 0.2 --max-ppl-increase 10",
)
#: A gate's name → how a sentence says its value.
GATE_WORDS = {
    "kl": "KL divergence is {0:.4f} nats per token, more than the {1:g} of --max-kl",
    "ppl_increase_pct": "perplexity is {0:.2f}% above the original's, more than the {1:g}% of --max-ppl-increase",
}
HINT = (
    "`trtk eval` shows the layers where quality is lost; use more --calib-samples, a smaller --group-size, "
    "--quant int8 or fp8, or --quant auto --max-kl."
)


def gate_options(command: output.F) -> output.F:
    """Add the quality gates."""
    bound = click.FloatRange(min=0)
    command = click.option(
        "--max-ppl-increase", type=bound, metavar="PCT", help="Exit 7 when perplexity rises by more percent."
    )(command)
    return click.option(
        "--max-kl", type=bound, metavar="X", help="Exit 7 when KL divergence, in nats per token, is larger."
    )(command)


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
def eval(
    checkpoint: Path, model: str, max_kl: float | None, max_ppl_increase: float | None, as_json: bool, **options: Any
) -> None:
    """Compare CHECKPOINT with the MODEL it was made from: perplexity, KL divergence, top-1 agreement.

    CHECKPOINT is a folder of `trtk quantize` or `trtk build`, or ModelOpt's export. Both models run layer by layer on
    the same text, the checkpoint in the arithmetic of its own formats.
    """
    need_packages("torch", "safetensors", "tokenizers")
    from toolkit import evaluate, models
    from toolkit.specs import gates_of

    started = time.monotonic()
    text = evaluate.TextSpec(path=options["text"], rows=options["rows"], length=options["length"])
    with output.progress() as progress:
        source = models.locate(model, progress=progress)
        found = evaluate.run(checkpoint, source, text, device=options["device"], progress=progress)
    gates = gates_of(found, max_kl=max_kl, max_ppl_increase_pct=max_ppl_increase)
    if as_json:
        about = {"checkpoint": str(checkpoint), "model": source.name, "text": options["text"] or "bundled"}
        output.document({**about, **as_document(found, gates), "duration_s": round(time.monotonic() - started, 3)})
    else:
        show(found, gates)
    need_gates(gates, str(checkpoint))


def as_document(found: Evaluation, gates: tuple[QualityGate, ...]) -> dict[str, Any]:
    """Return an evaluation as --json and the manifest have it."""
    from toolkit.specs import to_json

    return {
        "ppl": found.ppl,
        "ppl_base": found.ppl_base,
        "ppl_increase_pct": found.ppl_increase_pct,
        "kl": found.kl,
        "top1": found.top1,
        "tokens": found.tokens,
        "gates": [{**to_json(gate), "verdict": verdict(gate)} for gate in gates],
        "layers": to_json(found.layers),
    }


def verdict(gate: QualityGate) -> str:
    """Return `met` or `missed`."""
    return "met" if gate.is_met else "missed"


def show(found: Evaluation, gates: tuple[QualityGate, ...]) -> None:
    """Show where quality is lost, and how much in all."""
    names = list(dict.fromkeys(group for layer in found.layers for group in layer.groups))
    columns = ["layer", "behind it", *(name.removeprefix("attention.") for name in names)]
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


def _cell(groups: Any, name: str) -> str:
    return f"{groups[name]:.2%}" if name in groups else ""


def need_gates(gates: tuple[QualityGate, ...], checkpoint: str) -> None:
    """Raise GateError when a gate is missed, with every missed one's numbers."""
    from toolkit.errors import GateError

    missed = [GATE_WORDS[gate.name].format(gate.value, gate.limit) for gate in gates if not gate.is_met]
    if missed:
        raise GateError(f"{checkpoint} misses its quality gate: its {'; its '.join(missed)}.", hint=HINT)
