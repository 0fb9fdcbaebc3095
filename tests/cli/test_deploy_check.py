"""`trtk deploy --check`: one table, one document, and an exit code."""

import json

from click.testing import CliRunner

from toolkit.cli import main
from toolkit.validation import NOT_CHECKED, NOTHING


def check(folder, *options):
    return CliRunner().invoke(main, ["deploy", "--check", str(folder), *options])


def test_a_right_folder_is_told_in_a_table_with_what_was_not_checked(tmp_path):
    (tmp_path / "a.json").write_text("{}\n")

    done = check(tmp_path)

    assert done.exit_code == 0, done.output
    assert "JSON files" in done.stdout
    assert "passed, files: 1" in done.stdout
    assert "Nothing here of: YAML files" in done.stderr


def test_a_wrong_folder_ends_with_3_and_says_where(tmp_path):
    (tmp_path / "a.json").write_text("{,}\n")

    done = check(tmp_path)

    assert done.exit_code == 3
    assert "json: a.json: it is no JSON: " in done.stdout
    assert f"Error: {tmp_path} has one problem." in done.stderr


def test_json_says_the_same_in_one_document(tmp_path):
    (tmp_path / "a.json").write_text("{,}\n")

    done = check(tmp_path, "--json")
    document = json.loads(done.stdout)
    checks = {one["name"]: one for one in document["checks"]}

    assert (done.exit_code, document["is_right"]) == (3, False)
    assert checks["json"]["state"] == "failed"
    assert checks["json"]["problems"][0]["place"] == "a.json"
    assert {one["state"] for one in checks.values()} <= {"passed", "failed", NOT_CHECKED, NOTHING}


def test_a_folder_that_is_not_there_or_empty_is_a_wrong_word(tmp_path):
    assert check(tmp_path / "none").exit_code == 2
    empty = check(tmp_path)
    assert (empty.exit_code, f"{tmp_path} is empty." in empty.stderr) == (2, True)


def test_a_target_beside_check_is_a_wrong_word(tmp_path):
    done = CliRunner().invoke(main, ["deploy", "compose", "x", "--check", str(tmp_path)])

    assert (done.exit_code, "--check looks at a folder that was written." in done.stderr) == (2, True)
