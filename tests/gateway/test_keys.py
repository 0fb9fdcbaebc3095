"""API keys: hashes in a private file, one door, and none of it where others look."""

import json
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from toolkit.errors import UnknownName, UsageError
from toolkit.gateway import keys


@pytest.fixture
def file(tmp_path):
    return tmp_path / "private" / "keys.json"


def test_a_key_is_told_once_and_only_its_hash_is_kept(file):
    key = keys.add(file, "search")
    secret = key.removeprefix("trtk-").partition("-")[2]

    assert secret not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (kept,) = json.loads(file.read_text())["keys"]
    assert (kept["name"], key.startswith(f"trtk-{kept['id']}-"), len(secret)) == ("search", True, 43)
    assert keys.Keys(file).id_of(key) == kept["id"]


def test_only_whole_keys_of_the_file_open(file):
    key, other = keys.add(file, "one"), keys.add(file, "two")
    door = keys.Keys(file)

    assert door.id_of(key) != door.id_of(other)
    for wrong in ("", "trtk-", key[:-1], key + "x", key.upper(), key[:14] + other[14:], "é" * 57):
        assert door.id_of(wrong) is None


def test_a_change_of_the_file_counts_at_once(file):
    key = keys.add(file, "one")
    door = keys.Keys(file)
    later = keys.add(file, "later")
    assert door.id_of(later)
    keys.remove(file, "one")

    assert (door.id_of(key), [one.name for one in keys.read(file)]) == (None, ["later"])


def test_keys_that_are_made_at_once_are_all_kept(file):
    names = [f"team-{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as together:
        made = list(together.map(lambda name: keys.add(file, name), names))

    assert sorted(one.name for one in keys.read(file)) == names
    assert all(keys.Keys(file).id_of(key) for key in made)


def test_names_are_used_once_and_unknown_ones_are_named(file):
    keys.add(file, "search")
    with pytest.raises(UsageError, match="has a key named 'search' already"):
        keys.add(file, "search")
    with pytest.raises(UnknownName, match="no key named 'serach'") as caught:
        keys.remove(file, "serach")
    assert "Did you mean search?" in caught.value.hint


def test_a_file_that_others_can_read_or_that_is_none_is_refused(file, tmp_path):
    keys.add(file, "one")
    file.chmod(0o640)
    with pytest.raises(UsageError, match="has mode 0640") as caught:
        keys.Keys(file)
    assert caught.value.hint == f"chmod 600 {file}"
    with pytest.raises(UsageError, match="There is no key file"):
        keys.read(tmp_path / "none.json")
    wrong = tmp_path / "wrong.json"
    for text in ("[1]", "{", '{"keys": [1]}', '{"schema_version": 9, "keys": []}'):
        wrong.write_text(text)
        wrong.chmod(0o600)
        with pytest.raises(UsageError):
            keys.read(wrong)


@pytest.mark.parametrize(("mode", "is_read"), [(0o440, True), (0o400, True), (0o460, False), (0o444, False)], ids=oct)
def test_a_mounted_secret_belongs_to_root_and_is_read_by_its_group(file, monkeypatch, mode, is_read):
    keys.add(file, "a")
    file.chmod(mode)
    someone = file.stat().st_uid + 1
    monkeypatch.setattr("os.getuid", lambda: someone)  # somebody who is in the file's group
    if is_read:
        assert [one.name for one in keys.read(file)] == ["a"]
    else:
        with pytest.raises(UsageError, match="others may look into it"):
            keys.read(file)
