"""The page of a sweep, or of a search: the runs of both make a curve."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from importlib.util import find_spec
from typing import Any

from toolkit import templating
from toolkit.bench.sweeping import Curve
from toolkit.specs import LoadProfile


def of_sweep(
    curve: Curve,
    profile: LoadProfile,
    said: Sequence[str],
    *,
    has_pages: Collection[float | None],
    stop_reason: str | None = None,
) -> str:
    """Return the self-contained page of a sweep or a search; the loads of HAS_PAGES have one of their own beside it."""
    has_plots = find_spec("matplotlib") is not None
    shown: list[Any] = []
    if has_plots:
        from toolkit.bench import curve_plots

        shown = curve_plots.draw(curve)
    values = {
        "curve": curve,
        "profile": profile,
        "said": said,
        "has_pages": has_pages,
        "stop_reason": stop_reason,
        "plots": shown,
        "has_plots": has_plots,
    }
    return templating.render("report/sweep.html.j2", values)
