"""group.py as it runs in the pods: ranks start in every pod, for those who know the key, and end with their leader."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from toolkit.templating import directory

GROUP = directory() / "deploy/kubernetes/group.py"
#: Stands for mpirun: starts its command in the first worker through the agent, as Open MPI's does with orted.
MPIRUN = """#!/bin/sh
while [ "$1" != --host ]; do
  [ "$1" = plm_rsh_agent ] && agent=$2
  shift
done
echo "$2" > "$RECORD"
worker=${2#*,}
exec $agent "${worker%%:*}" "$TRTK_TEST_COMMAND"
"""


@pytest.fixture
def pod(tmp_path):
    """Starts group.py as a pod does; every one that is started ends with the test."""
    (tmp_path / "key").write_text("0123456789abcdef0123456789abcdef\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/mpirun").write_text(MPIRUN)
    (tmp_path / "bin/mpirun").chmod(0o755)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "TRTK_GROUP_PORT": str(port),
        "TRTK_GROUP_KEY_FILE": str(tmp_path / "key"),
        "TRTK_GROUP_WAIT_S": "20",
        "RECORD": str(tmp_path / "hosts"),
    }
    running = []

    def start(*words, **changes):
        child = subprocess.Popen(
            [sys.executable, GROUP, *words],
            env={**environment, **changes},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        running.append(child)
        return child

    start.port = port
    yield start
    for child in running:
        child.kill()
        child.communicate()


def listening(port):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        with socket.socket() as link:
            if link.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("nobody listens")


def ended(child):
    out, err = child.communicate(timeout=30)
    return child.returncode, out, err


def test_a_command_runs_in_the_other_pod_and_says_how_it_ended(pod):
    pod("serve")
    listening(pod.port)
    assert ended(pod("agent", "localhost", "echo here; echo there >&2; exit 3"))[:2] == (3, "here\nthere\n")


def test_the_leader_waits_for_its_workers_and_becomes_mpirun(pod, tmp_path):
    group = {"LWS_LEADER_ADDRESS": "localhost", "LWS_GROUP_SIZE": "2", "TRTK_TEST_COMMAND": "echo ranks; exit 5"}
    # The worker of `localhost` would be localhost-1, which nobody resolves: the group is named so that it does.
    (tmp_path / "sitecustomize.py").write_text(
        "import socket\n"
        "known = socket.create_connection\n"
        "socket.create_connection = lambda address, **more: known(('localhost', address[1]), **more)\n"
    )
    leader = pod(
        *("lead", "--ranks", "16", "--slots", "8", "--", "python3", "/bundle/start.py", "--rank"),
        **group,
        PYTHONPATH=str(tmp_path),
    )
    time.sleep(0.5)
    assert leader.poll() is None  # nobody is there yet
    pod("serve")
    code, out, err = ended(leader)
    assert (code, out) == (5, "ranks\n"), err
    assert (tmp_path / "hosts").read_text() == "localhost:8,localhost-1:8\n"
    assert "plm_rsh_no_tree_spawn 1" in err
    assert "-n 16" in err
    assert err.rstrip().endswith("python3 /bundle/start.py --rank")


def test_who_does_not_know_the_key_runs_nothing(pod, tmp_path):
    (tmp_path / "other").write_text("fedcba9876543210fedcba9876543210\n")
    pod("serve")
    listening(pod.port)
    stranger = pod("agent", "localhost", f"touch {tmp_path}/evil", TRTK_GROUP_KEY_FILE=str(tmp_path / "other"))
    code, _, err = ended(stranger)
    assert (code, err) == (1, "group: localhost: it does not know the group's key.\n")
    with socket.create_connection(("127.0.0.1", pod.port), timeout=10) as link, link.makefile("rw") as stream:
        stream.write(json.dumps({"challenge": "x"}) + "\n")
        stream.flush()
        said = json.loads(stream.readline())
        # Its own answer, sent back, proves nothing.
        stream.write(
            json.dumps({"proof": said["proof"]}) + "\n" + json.dumps({"command": f"touch {tmp_path}/evil"}) + "\n"
        )
        stream.flush()
        assert stream.readline() == ""
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("words", [b"", b"GET / HTTP/1.1\r\n\r\n", b"[]\n", b"\xff\xfe\n", b"x" * (1 << 21)], ids=len)
def test_a_worker_outlives_whoever_knocks(pod, words):
    pod("serve")
    listening(pod.port)
    with socket.create_connection(("127.0.0.1", pod.port), timeout=10) as link:
        try:
            link.sendall(words)
        except OSError:
            assert len(words) > 1 << 20  # it hangs up while they still talk
    assert ended(pod("agent", "localhost", "exit 0"))[0] == 0


def test_ranks_end_with_their_leader(pod, tmp_path):
    pod("serve")
    listening(pod.port)
    leader = pod("agent", "localhost", f"echo $$ > {tmp_path}/pid; sleep 300")
    pid = number_in(tmp_path / "pid")
    leader.send_signal(signal.SIGKILL)
    assert is_gone(pid)


def test_ranks_end_with_their_pod(pod, tmp_path):
    worker = pod("serve")
    listening(pod.port)
    leader = pod("agent", "localhost", f"echo $$ > {tmp_path}/pid; sleep 300")
    pid = number_in(tmp_path / "pid")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(timeout=20) == 143
    assert is_gone(pid)
    assert ended(leader)[0] != 0


def number_in(path):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        if path.is_file() and path.read_text().strip():
            return int(path.read_text())
        time.sleep(0.05)
    raise AssertionError("nothing was started")


def is_gone(pid):
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("text", ["", "short\n"], ids=["empty", "short"])
def test_a_key_that_is_none_starts_nothing(pod, tmp_path, text):
    (tmp_path / "weak").write_text(text)
    code, _, err = ended(pod("serve", TRTK_GROUP_KEY_FILE=str(tmp_path / "weak")))
    assert code == 1
    assert "holds no key of 16 bytes or more" in err


def test_it_is_a_program_of_its_own():
    assert "toolkit" not in GROUP.read_text()
    assert not GROUP.stat().st_mode & stat.S_IXUSR  # started with python3, wherever it is mounted
