"""The page of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from toolkit import templating
from toolkit.bench.sweeping import Curve


def of_sweep(curve: Curve, document: Mapping[str, Any]) -> str:
    """Return the self-contained page of sweep.json."""
    has_plots = find_spec("matplotlib") is not None
    shown: list[Any] = []
    if has_plots:
        from toolkit.bench import curve_plots

        shown = curve_plots.draw(curve)
    values = {"sweep": document, "curve": curve, "plots": shown, "has_plots": has_plots}
    return templating.render("report/sweep.html.j2", values)
