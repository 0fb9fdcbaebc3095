"""What a server's metrics say now, and the files that let Prometheus and Grafana watch it."""

from toolkit.monitoring.exported import Exported, every_name, known, seen, selectors
from toolkit.monitoring.figures import (
    EngineFigures,
    GatewayFigures,
    GpuFigures,
    ModelFigures,
    ServerFigures,
    figures,
    gateway_figures,
)
from toolkit.monitoring.rules import LeftOut
from toolkit.monitoring.scraping import Sample, Scrape, parse, scrape
from toolkit.monitoring.writing import ScrapeTarget, Written, made, write

__all__ = [
    "EngineFigures",
    "Exported",
    "GatewayFigures",
    "GpuFigures",
    "LeftOut",
    "ModelFigures",
    "Sample",
    "Scrape",
    "ScrapeTarget",
    "ServerFigures",
    "Written",
    "every_name",
    "figures",
    "gateway_figures",
    "known",
    "made",
    "parse",
    "scrape",
    "seen",
    "selectors",
    "write",
]
