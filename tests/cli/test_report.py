"""`trtk report`: several runs on one page, with the front that no run beats."""

import dataclasses
import json
import re

import pytest
from click.testing import CliRunner

from tests.bench.test_comparing import result
from tests.bench.test_report import run
from tests.cli.test_compare import written as written  # noqa: PLC0414 - the fixture
from toolkit import bench
from toolkit.bench import several
from toolkit.cli import main


def report(*words):
    return CliRunner().invoke(main, ["report", *words])


def test_the_page_and_the_table_name_every_run(written, tmp_path):
    folders = [written("slow", seed=1, scale=2), written("fast", seed=2)]
    page = tmp_path / "page.html"
    done = report(*folders, "-o", str(page))
    text = page.read_text()
    assert done.exit_code == 0, done.stderr
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "page" not in line)
    assert "<td>slow</td>" in text
    assert text.count("<svg") == 2
    assert not re.search(r"(src|href)=.?http|url\(http|@import", text)
    runs = json.loads(report(*folders, "-o", str(page), "--json").stdout)["runs"]
    assert [(run["name"], run["is_on_front"]) for run in runs] == [("slow", False), ("fast", True)]


def test_the_front_is_what_no_other_beats():
    quick, slow, between = result(seed=1), result(seed=2, scale=3), result(seed=3, scale=1.5)
    made = several.rows([quick, slow, between])
    assert [row.is_on_front for row in made] == [False, False, True]
    assert made[-1].tokens_per_s == pytest.approx(400 * 32 / quick.duration_s)


def test_a_wrong_path_leaves_no_page(tmp_path):
    done = report(str(tmp_path / "nothing"), "-o", str(tmp_path / "page.html"))
    assert done.exit_code == 2
    assert not (tmp_path / "page.html").exists()


def test_cost_and_energy_have_columns_where_a_run_knows_them():
    bare = result(seed=1)
    known = dataclasses.replace(
        result(seed=2),
        document={
            "cost": {"per_million_output_tokens": 1.5, "currency": "EUR"},
            "energy": {"joules_per_output_token": 2.25},
        },
    )
    assert "J/token" not in several.html([bare])
    page = several.html([bare, known])
    assert "<td>1.500 EUR</td><td>2.250</td>" in page
    assert "<td></td><td></td>" in page


def test_one_run_has_its_own_page_again(tmp_path):
    made, page = bench.summarise(run(10), {"os": "test"}), tmp_path / "page.html"
    own = bench.write(made, tmp_path / "run")
    assert report(str(tmp_path / "run"), "-o", str(page)).exit_code == 0
    assert page.read_text() == own.read_text()


def test_a_report_without_what_its_page_shows_is_refused_in_a_sentence(written, tmp_path):
    done = report(written("alone", seed=1), "-o", str(tmp_path / "page.html"))
    assert (done.exit_code, done.stderr.splitlines()[0]) == (
        2,
        "Error: The report.json of alone lacks something that its page shows: 'dict object' has no attribute 'name'.",
    )


def test_names_that_are_no_mathematics_and_no_markup_are_drawn_as_they_are(written, tmp_path):
    folders = [written("a $x^$ <b>", seed=1), written("$\\frac{$", seed=2)]
    page = tmp_path / "page.html"
    assert report(*folders, "-o", str(page)).exit_code == 0
    assert "<b>" not in page.read_text().split("<svg")[1]
    assert page.read_text().count("$x^$ &lt;b&gt;") == 3  # the table and both plots


def test_a_page_below_a_file_is_refused_in_a_sentence(written, tmp_path):
    (tmp_path / "file").write_text("")
    done = report(written("run", seed=1), written("b", seed=2), "-o", str(tmp_path / "file" / "page.html"))
    assert (done.exit_code, done.stderr[:44]) == (4, "Error: A file is where a folder has to be fo")
