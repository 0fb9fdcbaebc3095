"""`trtk gpus`: the catalogue of GPUs, as a table or one card in full."""

from __future__ import annotations

import textwrap
from typing import Any

import click

from toolkit.cli import output
from toolkit.specs import GpuSpec, to_json

COLUMNS = ("GPU", "SM", "GiB", "usable", "GB/s", "FP16", "FP8", "FP4", "W")
#: INT8 would not fit into 80 columns; a card and --json have every rate.
DTYPES = ("fp16", "fp8", "fp4")
#: Width of the names in front of one card's values.
LABEL_WIDTH = 22


@click.command(epilog=output.examples("trtk gpus", "trtk gpus a4500 'NVIDIA L4' --json"))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@output.json_option
def gpus(names: tuple[str, ...], as_json: bool) -> None:
    """List the GPUs that trtk knows, or show the named ones in full."""
    from toolkit.gpus import catalogue, get

    chosen = [get(name) for name in names] if names else list(catalogue())
    if as_json:
        output.document({"gpus": [document(gpu) for gpu in chosen]})
    elif names:
        for gpu in chosen:
            output.text(card(gpu))
    else:
        output.table("GPUs", COLUMNS, [row(gpu) for gpu in chosen], right=COLUMNS[1:])
        output.text("usable: GiB as read from a card; ~ estimates it. FP16-FP4: dense TFLOPS.")


def document(gpu: GpuSpec) -> dict[str, Any]:
    """Return a GPU with every field for --json."""
    return {**to_json(gpu), "compute_capability": gpu.compute_capability}


def row(gpu: GpuSpec) -> list[str]:
    """Return a GPU's cells of the table."""
    if gpu.is_cpu:
        return [gpu.name, "-", *["host"] * 3, *["-"] * 4]
    usable = f"{'' if gpu.is_memory_measured else '~'}{gpu.memory_usable_mib / 1024:.1f}"
    rates = [f"{gpu.dense_tflops[dtype]:.0f}" if dtype in gpu.dense_tflops else "-" for dtype in DTYPES]
    sizes = [f"{gpu.memory_gib:g}", usable, f"{gpu.bandwidth_gb_per_s:.0f}"]
    return [gpu.name, str(gpu.sm), *sizes, *rates, f"{gpu.tdp_w:g}"]


def card(gpu: GpuSpec) -> str:
    """Return everything that is known about one GPU, a line each."""
    known = [*facts(gpu), *runs(gpu)]
    lines = [gpu.title, *(_line(label, value) for label, value in known if value)]
    return "\n".join(lines) + "\n"


def facts(gpu: GpuSpec) -> list[tuple[str, str]]:
    """Return label and value of each fact; an empty value is one that is not known or does not apply."""
    how = "as read from a card" if gpu.is_memory_measured else "estimated"
    rates = ", ".join(f"{dtype} {rate:g}" for dtype, rate in gpu.dense_tflops.items())
    return [
        ("name", gpu.name),
        ("also called", ", ".join(gpu.aliases)),
        ("compute capability", gpu.compute_capability and f"{gpu.compute_capability} (sm_{gpu.sm})"),
        ("memory", f"{gpu.memory_gib:g} GiB {gpu.memory_type}" if gpu.memory_gib else gpu.memory_type),
        ("usable memory", f"{gpu.memory_usable_mib} MiB ({how})" if gpu.memory_usable_mib else ""),
        ("bandwidth", _measure(gpu.bandwidth_gb_per_s, "GB/s")),
        ("dense tensor TFLOPS", rates),
        ("NVLink", _measure(gpu.nvlink_gb_per_s, "GB/s, both directions") or ("" if gpu.is_cpu else "none")),
        ("PCIe", gpu.pcie),
        ("power", _measure(gpu.tdp_w, "W")),
        ("ECC", gpu.ecc),
        ("SMs", _measure(gpu.sm_count, "")),
        ("boost clock", _measure(gpu.boost_mhz, "MHz")),
        ("L2 cache", _measure(gpu.l2_mb, "MB")),
        ("confidence", gpu.confidence),
        ("sources", "\n".join(gpu.sources)),
        ("notes", gpu.notes),
    ]


def runs(gpu: GpuSpec) -> list[tuple[str, str]]:
    """Return each flow and the quantizations it runs on a GPU, those in doubt with a question mark."""
    from toolkit import quant

    found = []
    for flow in quant.matrix.flows():
        sure = [recipe.name for recipe in quant.catalogue() if gpu.sm in recipe.sms_by_flow[flow]]
        doubted = [f"{recipe.name}?" for recipe in quant.catalogue() if gpu.sm in recipe.unverified_sms_by_flow[flow]]
        found.append((f"runs with {flow}", ", ".join([*sure, *doubted])))
    return found


def _measure(value: float, unit: str) -> str:
    return f"{value:g} {unit}".rstrip() if value else ""


def _line(label: str, value: str) -> str:
    wrapper = textwrap.TextWrapper(width=80 - LABEL_WIDTH, break_long_words=False, break_on_hyphens=False)
    lines = [piece for line in value.splitlines() for piece in wrapper.wrap(line)]
    return "\n".join(f"  {label if not index else '':<{LABEL_WIDTH - 2}}{line}" for index, line in enumerate(lines))
