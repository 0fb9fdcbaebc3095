"""The pages as a browser shows them: no error in its console, nothing fetched, and data in every plot."""

import json
import re
import shutil
import subprocess

import pytest

from tests.bench.test_comparing import result
from tests.bench.test_sweeping import queued
from toolkit import bench
from toolkit.bench import pages, several, sweeping
from toolkit.bench.report import html
from toolkit.bench.runs import Run
from toolkit.specs import LoadProfile

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]
#: Asks the page itself: the box of every figure, and how many marks lie in it.
PROBE = """<script>
addEventListener("load", () => {
  const figures = [...document.querySelectorAll("figure")].map(figure => {
    const svg = figure.querySelector("svg"), box = svg.getBoundingClientRect();
    const drawn = [...svg.querySelectorAll("path, use, rect")].filter(mark => mark.getBoundingClientRect().width > 0);
    return {id: figure.id, width: box.width, height: box.height, marks: drawn.length};
  });
  const said = {figures, wide: document.documentElement.scrollWidth > innerWidth, text: document.body.innerText.length};
  document.body.dataset.probe = JSON.stringify(said);
});
</script></body>"""


def opened(page, folder, *, width=1000, options=()):
    """Return what the page says of itself, and what the browser complained about."""
    file = folder / "page.html"
    file.write_text(page.replace("</body>", PROBE), encoding="utf-8")
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr",
         f"--window-size={width},1400", f"--user-data-dir={folder / 'profile'}", *options, "--dump-dom", file.as_uri()],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    found = re.search(r'data-probe="([^"]*)"', done.stdout)
    assert found, done.stderr[-2000:]
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    return json.loads(found[1].replace("&quot;", '"')), complaints


@pytest.fixture(scope="module")
def report():
    made = result(seed=1, count=60, failed=3)
    samples = [
        {"t_s": float(i), "requests_active": 4.0 + i, "requests_waiting": float(i), "kv_fraction": i / 20}
        | dict.fromkeys(("gpu_utilization", "gpu_power_w"))
        for i in range(10)
    ]
    run = Run(
        profile=LoadProfile(url="grpc://x", requests=60, concurrency=2, osl=32, slos=("ttft=60ms@p95",)),
        records=made.records, started_at="", duration_s=made.duration_s, mean_in_flight=1.0,
        server={"name": "triton", "version": "2.51", "models": None},
        observed={"url": "x", "problem": "", "samples": samples, "peak": {}},
    )  # fmt: skip
    return bench.summarise(run, {"os": "test"})


def test_every_plot_of_a_report_has_data_and_the_console_is_silent(report, tmp_path):
    seen, complaints = opened(html(report), tmp_path)
    assert complaints == []
    assert [figure["id"] for figure in seen["figures"]] == [
        "over-time", "cdf", "throughput", "timeline", "tokens", "server"
    ]  # fmt: skip
    for figure in seen["figures"]:
        assert figure["width"] > 700, figure
        assert figure["height"] > 150, figure
        assert figure["marks"] > 10, figure
    assert seen["wide"] is False


def test_a_telephone_does_not_scroll_sideways(report, tmp_path):
    seen, _ = opened(html(report), tmp_path, width=500)
    assert seen["wide"] is False


def test_the_page_of_several_runs_has_both_plots(tmp_path):
    page = several.html([result(seed=1), result(seed=2, scale=2), result(seed=3, scale=4)])
    seen, complaints = opened(page, tmp_path)
    assert complaints == []
    assert [figure["id"] for figure in seen["figures"]] == ["pareto", "ttft"]
    assert all(figure["marks"] > 10 for figure in seen["figures"])


def test_a_picture_of_the_page_is_not_blank(report, tmp_path):
    import matplotlib.image

    opened(html(report), tmp_path, options=(f"--screenshot={tmp_path / 'page.png'}",))
    picture = matplotlib.image.imread(tmp_path / "page.png")
    assert picture.shape[:2] == (1400, 1000)
    assert len({tuple(pixel) for pixel in picture[::7, ::7].reshape(-1, picture.shape[2]).tolist()}) > 20


def test_the_page_of_a_sweep_shows_knee_and_cliff(tmp_path):
    curve = sweeping.curve(
        "concurrency", [queued(load, 8, told=("the KV cache is full",)) for load in (1, 2, 4, 8, 16)]
    )
    profile = LoadProfile(url="grpc://x", requests=1)
    page = pages.of_sweep(curve, profile, ["Knee at 8."], has_pages=(1.0, 2.0))
    seen, complaints = opened(page, tmp_path)
    assert complaints == []
    names = ["throughput-by-load", "latency-by-load", "latency-by-throughput"]
    assert [figure["id"] for figure in seen["figures"]] == names
    assert all(figure["marks"] > 10 and figure["width"] > 700 for figure in seen["figures"])
    assert seen["wide"] is False
    assert page.count(">knee<") == 3  # in the table, and in the two figures over the load
    assert page.count(">cliff<") == 2
    assert page.count('/report.html"') == 2
