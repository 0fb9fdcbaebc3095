"""`trtk report`: several runs on one page, with the front that no run beats."""

import dataclasses
import json
import re

import pytest
from click.testing import CliRunner

from tests.bench.test_comparing import result
from tests.cli.test_compare import written as written  # noqa: PLC0414 - the fixture
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
