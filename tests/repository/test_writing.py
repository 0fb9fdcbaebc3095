"""A repository is there whole, or as it was before."""

import pytest

from toolkit import repository
from toolkit.errors import MissingError, UsageError

FILES = {"ensemble/config.pbtxt": "one", "ensemble/1/.gitkeep": ""}


def contents(folder):
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".trtk-repository.json")
    return {str(path.relative_to(folder)): path.read_text() for path in files}


def test_a_second_writing_replaces_the_first_and_leaves_nothing_beside_it(tmp_path):
    repository.write(FILES, tmp_path / "repository")
    repository.write({"other/config.pbtxt": "two"}, tmp_path / "repository")

    assert contents(tmp_path / "repository") == {"other/config.pbtxt": "two"}
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


def test_a_writing_that_fails_leaves_the_old_repository(tmp_path):
    repository.write(FILES, tmp_path / "repository")
    with pytest.raises(MissingError, match="A file is where a folder has to be"):
        repository.write({"a": "file", "a/b": "cannot be below a file"}, tmp_path / "repository")

    assert contents(tmp_path / "repository") == FILES
    assert [path.name for path in tmp_path.iterdir()] == ["repository"]


@pytest.mark.parametrize("change", ["edited", "added", "removed"])
def test_what_was_changed_by_hand_is_not_overwritten(tmp_path, change):
    folder = tmp_path / "repository"
    repository.write(FILES, folder)
    if change == "edited":
        (folder / "ensemble" / "config.pbtxt").write_text("mine")
    elif change == "added":
        (folder / "mine.txt").write_text("mine")
    else:
        (folder / "ensemble" / "config.pbtxt").unlink()
    before = contents(folder)
    with pytest.raises(UsageError, match="which trtk did not write as it is now"):
        repository.write(FILES, folder)

    assert contents(folder) == before


def test_a_folder_that_trtk_did_not_write_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"holds thesis\.txt"):
        repository.write(FILES, tmp_path)

    assert contents(tmp_path) == {"thesis.txt": "mine"}


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "repository").mkdir()
    repository.write(FILES, tmp_path / "repository")

    assert contents(tmp_path / "repository") == FILES


def test_python_caches_of_a_server_that_ran_are_no_edit(tmp_path):
    folder = tmp_path / "repository"
    repository.write(FILES, folder)
    (folder / "ensemble" / "1" / "__pycache__").mkdir()
    (folder / "ensemble" / "1" / "__pycache__" / "model.pyc").write_text("bytes")
    repository.write(FILES, folder)

    assert contents(folder) == FILES
