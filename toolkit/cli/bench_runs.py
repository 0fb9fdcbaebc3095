"""The runs of a load test, a search or a sweep: each shown as it goes, with what this machine's GPUs do meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from toolkit.cli import live

if TYPE_CHECKING:
    from toolkit.bench import Run
    from toolkit.specs import BenchReport, LoadProfile
    from toolkit.specs.machine import GpuUse

UNITS = {"concurrency": "in flight", "rate": "requests/s"}
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Series:
    """Runs against one server; where it has a price, the inputs are measured by themselves before the first."""

    def __init__(self, profile: LoadProfile) -> None:
        self.is_gone_because: str | None = None  # the server, since the last run
        self._profile = profile
        self._input_s_per_token: float | None = None
        self._is_input_known = profile.price is None or not profile.is_streaming

    def run(self, asked: LoadProfile) -> Run:
        """Return what happened."""
        from toolkit import bench as load_tester

        if not self._is_input_known:
            self._measure_input()
        from toolkit.errors import ServerError

        try:
            with live.shown() as watch, gpu_reader(asked.url) as read_gpus:
                run = load_tester.run(asked, watch=watch, read_gpus=read_gpus)
        except ServerError as error:
            self.is_gone_because = str(error)
            raise
        return replace(run, input_s_per_token=self._input_s_per_token)

    def _measure_input(self) -> None:
        from toolkit import bench as load_tester
        from toolkit.bench import price
        from toolkit.errors import ServerError

        self._is_input_known = True
        try:
            alone = load_tester.run(price.lone(self._profile))
        except ServerError:
            return  # what is wrong is for the measured run to say, which keeps count of it
        if alone.is_interrupted:
            raise KeyboardInterrupt
        self._input_s_per_token = price.input_s_per_token(alone)


class Kept:
    """A folder with a folder for each run, and the reports by load."""

    def __init__(self, folder: Path, what: str, environment: Mapping[str, Any]) -> None:
        self.folder = folder
        self.what = what
        self.reports: dict[float, BenchReport] = {}
        self.was_interrupted = False
        self._environment = environment

    def keep(self, asked: LoadProfile, run: Run, *, has_page: bool) -> BenchReport | None:
        """Write the report of a run and return it; None for one that was stopped before its first request."""
        from toolkit import bench as load_tester
        from toolkit.bench import finding

        self.was_interrupted = run.is_interrupted
        if not run.records:
            return None
        report = load_tester.summarise(run, self._environment)
        load = finding.load_of(asked, self.what)
        self.reports[load] = report
        load_tester.write(report, self.folder_of(load), has_page=has_page)
        return report

    def folder_of(self, load: float) -> Path:
        """Return where the run of a load is."""
        return self.folder / f"{self.what}-{load:g}"


@contextlib.contextmanager
def gpu_reader(url: str) -> Iterator[Callable[[], Sequence[GpuUse]] | None]:
    """Yield what reads this machine's GPUs, where the server is here and the driver is; else None."""
    from toolkit.machine import gpu_use

    reader = gpu_use.open_reader() if urlsplit(url).hostname in LOOPBACK else None
    try:
        yield reader.read if reader else None
    finally:
        if reader:
            reader.close()
