"""A build that is cut short leaves nothing half-made, and the same command finishes it."""

import json
import os
import signal
import subprocess
import time

import pytest

from tests.e2e.conftest import TRTK, run_trtk

pytestmark = [pytest.mark.slow, pytest.mark.engine]


def command(target):
    return ("build", "demo", "--gpu", "cpu", "--quant", "int4_rtn", "-o", target, "--json")


@pytest.mark.parametrize(("how", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_build_that_is_cut_short_is_finished_by_the_same_command(place, tmp_path, how, code):
    folder, env = place
    target = tmp_path / "demo-cut"
    journal = target.with_name("demo-cut.partial") / "checkpoint.partial" / "rank0.journal"
    process = subprocess.Popen(
        [*TRTK, *map(str, command(target))], cwd=folder, env={**os.environ, **env}, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while not (journal.is_file() and journal.read_text().count("\n") > 3):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    process.send_signal(how)
    _, err = process.communicate(timeout=30)

    assert process.returncode == code, err
    assert "Traceback" not in err
    assert (how == signal.SIGKILL) or err.rstrip().endswith("Interrupted.")
    assert not target.exists()
    returned, out, err = run_trtk(*command(target), cwd=folder, env=env)
    assert returned == 0, err
    assert json.loads(out)["is_reused"] is False
    assert (target / "manifest.json").is_file()
    assert not target.with_name("demo-cut.partial").exists()


def test_a_full_disk_is_said_and_the_build_goes_on_where_there_is_room(place, small_disk):
    """On a file system of its own that holds the checkpoint but not the engine."""
    folder, env = place
    disk = small_disk("380m")
    filler = disk / "filler"
    process = subprocess.Popen(
        [*TRTK, *map(str, command(disk / "demo"))],
        cwd=folder,
        env={**os.environ, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    journal = disk / "demo.partial/checkpoint.partial/rank0.journal"
    while not journal.is_file():  # the check before any work has passed by then
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    filler.write_bytes(b"\0" * 190_000_000)
    _, err = process.communicate(timeout=120)

    assert process.returncode == 4, err
    assert "Traceback" not in err
    assert "The disk is full" in err or "OpenVINO could not write" in err
    assert not (disk / "demo").exists()
    filler.unlink()
    code, _, err = run_trtk(*command(disk / "demo"), cwd=folder, env=env)
    assert code == 0, err
    assert (disk / "demo/manifest.json").is_file()


def test_two_builds_of_one_folder_do_not_harm_each_other(place, tmp_path):
    folder, env = place
    target = tmp_path / "demo-twice"
    both = [
        subprocess.Popen(
            [*TRTK, *map(str, command(target))],
            cwd=folder,
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    documents = [json.loads(process.communicate(timeout=300)[0]) for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert sorted(document["is_reused"] for document in documents) == [False, True]
    manifest = json.loads((target / "manifest.json").read_text())
    assert all((target / record["path"]).stat().st_size == record["size_bytes"] for record in manifest["files"])
