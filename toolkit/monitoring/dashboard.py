"""The Grafana dashboard: the panels of panels.toml whose series exist, placed on a grid of 24 columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.monitoring.exported import Exported
from toolkit.monitoring.rules import LeftOut
from toolkit.registry import toml_document

UID = "trtk-serving"
#: Of Grafana 11; newer ones migrate it when it is imported.
SCHEMA_VERSION = 39
COLUMNS, HEIGHTS = 24, {"stat": 5, "gauge": 5, "timeseries": 8}
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
#: Shares turn colour here.
STEPS = ({"color": "green", "value": None}, {"color": "orange", "value": 0.8}, {"color": "red", "value": 0.95})
#: Shares that ought to be nothing.
FAILURE_STEPS = ({"color": "green", "value": None}, {"color": "red", "value": 0.05})


def dashboard(exported: Exported) -> tuple[dict[str, Any], tuple[LeftOut, ...]]:
    """Return the dashboard, and the panels that are not in it."""
    rows = toml_document(Path(__file__).parent / "panels.toml")["row"]
    left_out: list[LeftOut] = []
    panels: list[dict[str, Any]] = []
    y = 0
    for row in rows:
        kept = []
        for panel in row["panel"]:
            queries = [query for query in panel["query"] if not exported.missing(query["expr"])]
            if queries:
                kept.append({**panel, "query": queries})
            else:
                left_out.append(_left_out(panel, exported))
        if kept:
            panels.append(_row(row["title"], len(panels) + 1, y))
            placed, y = _placed(kept, len(panels) + 1, y + 1)
            panels += placed
    return _document(panels), tuple(left_out)


def _left_out(panel: Mapping[str, Any], exported: Exported) -> LeftOut:
    missing = {one.name for query in panel["query"] for one in exported.missing(query["expr"])}
    return LeftOut(what=f"panel {panel['title']}", missing=tuple(sorted(missing)))


def _row(title: str, panel_id: int, y: int) -> dict[str, Any]:
    return {
        "id": panel_id,
        "type": "row",
        "title": title,
        "collapsed": False,
        "panels": [],
        "gridPos": {"x": 0, "y": y, "w": COLUMNS, "h": 1},
    }


def _placed(panels: list[dict[str, Any]], first_id: int, y: int) -> tuple[list[dict[str, Any]], int]:
    """Return panels from left to right, line by line, and where the next line begins."""
    made: list[dict[str, Any]] = []
    x = line_height = 0
    for index, panel in enumerate(panels):
        height = HEIGHTS[panel["kind"]]
        if x + panel["width"] > COLUMNS:
            x, y, line_height = 0, y + line_height, 0
        grid = {"x": x, "y": y, "w": panel["width"], "h": height}
        made.append(_panel(panel, first_id + index, grid))
        x, line_height = x + panel["width"], max(line_height, height)
    return made, y + line_height


def _panel(panel: Mapping[str, Any], panel_id: int, grid: Mapping[str, int]) -> dict[str, Any]:
    is_share = panel["unit"] == "percentunit"
    steps = FAILURE_STEPS if panel["title"] == "Failures" else STEPS if is_share else STEPS[:1]
    defaults: dict[str, Any] = {
        "unit": panel["unit"],
        "min": 0,
        "thresholds": {"mode": "absolute", "steps": list(steps)},
    }
    if is_share:
        defaults["max"] = 1
    return {
        "id": panel_id,
        "type": panel["kind"],
        "title": panel["title"],
        "description": panel["description"],
        "datasource": DATASOURCE,
        "gridPos": dict(grid),
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel["kind"]),
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": DATASOURCE,
                "expr": query["expr"],
                "legendFormat": query["legend"],
                "editorMode": "code",
                "range": True,
            }
            for index, query in enumerate(panel["query"])
        ],
    }


def _options(kind: str) -> dict[str, Any]:
    if kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}}


def _document(panels: list[dict[str, Any]]) -> dict[str, Any]:
    variables = [
        {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "current": {}},
        {
            "name": "server",
            "label": "Server",
            "type": "query",
            "datasource": DATASOURCE,
            "query": {"query": 'label_values(up{job="triton"}, server)', "refId": "server"},
            "refresh": 2,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": ["All"], "value": ["$__all"]},
        },
    ]
    return {
        "uid": UID,
        "title": "LLM serving",
        "description": "Made by `trtk monitoring` from the metrics that its servers export.",
        "tags": ["trtk", "triton", "llm"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "",
        "templating": {"list": variables},
        "annotations": {"list": []},
        "links": [],
        "panels": panels,
    }
