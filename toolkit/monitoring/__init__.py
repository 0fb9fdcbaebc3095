"""What a server's metrics say now, and the files that let Prometheus and Grafana watch it."""

from toolkit.monitoring.figures import EngineFigures, GpuFigures, ModelFigures, ServerFigures, figures
from toolkit.monitoring.scraping import Sample, Scrape, parse, scrape

__all__ = [
    "EngineFigures",
    "GpuFigures",
    "ModelFigures",
    "Sample",
    "Scrape",
    "ServerFigures",
    "figures",
    "parse",
    "scrape",
]
