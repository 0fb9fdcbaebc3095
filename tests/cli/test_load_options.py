"""Options of `trtk bench` for conversations, exact prompts and several processes."""

import json

import pytest
from click.testing import CliRunner

from tests.bench.conftest import serve  # noqa: F401 - a fixture
from tests.conftest import save_tokenizer
from toolkit.cli import main
from toolkit.cli.load_options import tokenizer_of
from toolkit.specs import ServeSpec

CONFIG = 'parameters { key: "tokenizer_dir" value { string_value: "%s" } }\n'


def trtk(*arguments):
    return CliRunner().invoke(main, ["bench", *map(str, arguments)], catch_exceptions=False)


def test_all_of_them_at_once(serve, tmp_path):  # noqa: F811
    save_tokenizer(tmp_path, 320)
    served = serve(counts="none")  # a server that does not count cannot say that this tokenizer is another's
    options = ["--turns", "2", "--think", "0.05", "--processes", 2, "--tokenizer", tmp_path, "--osl", 4]
    done = trtk("--url", served.grpc, "--concurrency", 2, "--requests", 8, *options, "-o", tmp_path / "r", "--json")
    document = json.loads(done.stdout)
    assert (done.exit_code, document["requests"]["ok"], document["client"]["processes"]) == (0, 8, 2)
    # Who begins while others think may take the last request from them.
    assert [row["turn"] for row in document["turns"]] == [1, 2]
    assert document["turns"][0]["requests"] in {4, 5}
    profile = document["profile"]
    assert (profile["turns"], profile["think_s"], profile["tokenizer"]) == ("2", "0.05", str(tmp_path))
    page = (tmp_path / "r" / "report.html").read_text()
    assert "exactly 128 tokens in, 4 tokens out, conversations of 2 turns, 0.05 s to think" in page
    assert "by each of 2 processes" in page


def test_the_page_can_be_drawn_later(serve, tmp_path):  # noqa: F811
    done = trtk("--url", serve().http, "--requests", 8, "--osl", 2, "--no-page", "-o", tmp_path / "r")
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, f"{'report':<26} {tmp_path}/r")
    assert sorted(path.name for path in (tmp_path / "r").iterdir()) == [
        "report.csv",
        "report.json",
        "requests.csv",
        "requests.jsonl",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--think", "2"], "--think is the time between turns."),
        (["--turns", "0"], "'0' is no length in tokens."),
        (["--turns", "2", "--think", "-1"], "'-1' is no time in seconds."),
        (["--turns", "2", "--think", "lognormal:0,1"], "'lognormal:0,1' is no time in seconds."),
        (["--tokenizer", "/nowhere"], "'/nowhere' does not exist"),
        (["--tokenizer", __file__], f"The tokenizer {__file__} cannot be read"),
        (["--sweep", "concurrency=1..2", "--no-page"], "A search and a sweep have one page for all of their runs."),
        (["--processes", "0"], "0 is not in the range"),
        (["--rate", "5", "--concurrency", "2", "--processes", "2"], "2 client processes cannot count together"),
    ],
)
def test_what_cannot_be_meant_is_exit_2(arguments, message):
    done = trtk("--url", "grpc://127.0.0.1:1", *arguments)
    assert (done.exit_code, message in done.stderr) == (2, True), done.stderr


def spec(tmp_path, *, folder=""):
    return ServeSpec(
        name="x", repository=str(tmp_path / "build" / "model_repository"), backend="embedded", folder=folder
    )


def test_the_tokenizer_is_found_in_what_is_served(tmp_path):
    preprocessing = tmp_path / "build" / "model_repository" / "preprocessing"
    preprocessing.mkdir(parents=True)
    assert tokenizer_of(spec(tmp_path)) is None
    (preprocessing / "config.pbtxt").write_text(CONFIG % "../tokenizer")
    assert tokenizer_of(spec(tmp_path)) is None
    (tmp_path / "build" / "tokenizer").mkdir()
    save_tokenizer(tmp_path / "build" / "tokenizer", 320)
    found = tmp_path / "build" / "tokenizer" / "tokenizer.json"
    assert tokenizer_of(spec(tmp_path)) == found
    assert tokenizer_of(spec(tmp_path, folder=str(tmp_path / "build"))) == found
    (preprocessing / "config.pbtxt").write_text(CONFIG % (tmp_path / "build" / "tokenizer"))
    assert tokenizer_of(spec(tmp_path)) == found
