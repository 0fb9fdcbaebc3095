"""`trtk plan --verify`: the plan of what is served, beside what the server says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.cli import output, plan_views
from toolkit.errors import UsageError

if TYPE_CHECKING:
    from toolkit.cli.plan_making import Answer
    from toolkit.plan.observed import Row
    from toolkit.specs import Endpoint

GIB = 1 << 30
BLOCKS, MEMORY = "nv_trt_llm_kv_cache_block_metrics", "nv_trt_llm_runtime_memory_metrics"


def server(name: str) -> tuple[str, list[Row]]:
    """Return (the server, rows) of one that trtk started; without a name, of the only one."""
    from toolkit.cli.repository_writing import plan_of
    from toolkit.plan import limits, observed
    from toolkit.serve import log_path, only_name, running

    chosen = name or only_name()
    end = next((one.endpoint for one in running() if one.endpoint.name == chosen), None)
    if end is None:
        raise UsageError(f"There is no server {chosen!r}, and no such log file.", hint="`trtk status` lists servers.")
    if not end.spec.folder:
        raise UsageError(
            f"{chosen} serves a repository that has no plan with it.", hint="Serve a folder that `trtk build` made."
        )
    plan = plan_of(Path(end.spec.folder))
    blocks, memory = _metrics(end)
    planned = observed.of_plan(plan, tokens_per_block=limits.TOKENS_PER_BLOCK, blocks_used=blocks.get("used", 0))
    log = log_path(chosen).read_text(encoding="utf-8", errors="replace")
    told = observed.of_metrics(blocks, memory, is_cpu=plan.gpu.is_cpu)
    return chosen, observed.compared(planned, {**told, **observed.of_log(log)})


def log(path: Path, answer: Answer) -> list[Row]:
    """Return the rows of a boot log beside a plan that is made now."""
    from toolkit.plan import memory, observed

    made = answer.candidate
    limits = made.sizing.limits
    parts = {
        "runtime_buffers": memory.buffers_bytes(made.setup.model, limits),
        "decoder": memory.decoder_bytes(made.setup.model, limits),
    }
    found = observed.of_log(path.read_text(encoding="utf-8", errors="replace"))
    if not found:
        raise UsageError(
            f"{path} has no line of TensorRT-LLM's that says what was allocated.",
            hint="Take the server's log from its start, at log level info: `trtk logs NAME`.",
        )
    return observed.compared(observed.of_sizing(made.sizing, parts), found)


def show(title: str, rows: list[Row]) -> None:
    """Print what was planned beside what was found."""
    if not rows:
        output.text(f"{title}: it says nothing yet that a plan says too.")
        return
    cells = [
        (row.what.replace("_", " "), amount(row.what, row.planned), amount(row.what, row.found), f"{row.off:+.1%}")
        for row in rows
    ]
    columns = ("what", "planned", "found", "off")
    output.table(f"{title}: the plan and the server", columns, cells, right=columns[1:])
    for row in rows:
        if row.is_off:
            plan_views.labelled("", f"{row.what.replace('_', ' ')} was off by {row.off:+.0%}: {row.meaning}.")
    if not any(row.is_off for row in rows):
        output.text("The plan was right within 10 %.")


def document(title: str, rows: list[Row]) -> dict[str, Any]:
    """Return the same for --json."""
    from toolkit.specs import to_json

    return {
        "server": title,
        "is_right": not any(row.is_off for row in rows),
        "rows": [{**to_json(row), "off": row.off} for row in rows],
    }


def amount(what: str, value: float) -> str:
    """Return a size in GiB, or a count."""
    from toolkit.plan import observed

    return f"{value / GIB:.2f} GiB" if observed.is_bytes(what) else f"{value:,.0f}"


def _metrics(end: Endpoint) -> tuple[dict[str, float], dict[str, float]]:
    from toolkit.monitoring import scraping

    found = scraping.scrape(end.metrics_url)
    blocks = {one.labels["kv_cache_block_type"]: one.value for one in found.matching(BLOCKS)}
    return blocks, {one.labels["memory_type"]: one.value for one in found.matching(MEMORY)}
