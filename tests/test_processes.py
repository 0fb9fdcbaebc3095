"""What /proc tells of processes, with processes that live and die."""

import subprocess
import sys
import time

from toolkit import processes

#: Starts itself under another name; there it has one child that ended unnoticed, and one that it collects late.
PARENT = """#!{python}
import os, subprocess, sys, time
if len(sys.argv) > 1:
    unnoticed, late = subprocess.Popen(["true"]), subprocess.Popen(["true"])
    print(unnoticed.pid, flush=True)
    time.sleep(float(sys.argv[1]))
    os.waitpid(late.pid, 0)
    time.sleep(60)
subprocess.run([os.path.join(os.path.dirname(sys.argv[0]), "tritonserver"), "0.2"])
"""


def test_dead_children_of_a_descendant_are_found_and_those_just_collected_are_not(tmp_path):
    for name in ("outer", "tritonserver"):
        (tmp_path / name).write_text(PARENT.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    with subprocess.Popen([tmp_path / "outer"], stdout=subprocess.PIPE, text=True, start_new_session=True) as outer:
        try:
            unnoticed = int(outer.stdout.readline())
            (inner,) = processes.descendants(outer.pid, "tritonserver")
            deadline = time.monotonic() + 10
            while not processes.dead_children(inner) and time.monotonic() < deadline:
                time.sleep(0.05)

            time.sleep(0.3)
            assert processes.dead_children(inner) == [unnoticed]
            assert processes.dead_children(outer.pid) == []
            assert processes.descendants(outer.pid, "none") == []
        finally:
            for one in processes.in_session(outer.pid):
                processes.send(one, 9)


def test_how_a_child_ended_is_told_once():
    child = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"])
    assert processes.how_it_ended(child.pid, timeout_s=20) == " with exit code 3"
    assert processes.how_it_ended(child.pid, timeout_s=0) == ""
    killed = subprocess.Popen(["sleep", "60"])
    killed.kill()
    assert processes.how_it_ended(killed.pid, timeout_s=20) == " by SIGKILL"
    for one in (child, killed):
        one.poll()
