"""`trtk serve`, `status`, `logs` and `stop` as a shell sees them, on a real tritonserver."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from toolkit.cli import serve

ECHO = Path(__file__).parents[1] / "serve" / "echo_repository"


@pytest.fixture
def home(tmp_path):
    shutil.copytree(ECHO, tmp_path / "echo")
    yield tmp_path
    trtk(tmp_path, "stop", "--all", "--timeout", "0")


@pytest.fixture
def port_options():
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        http, grpc, metrics = (str(one.getsockname()[1]) for one in sockets)
    return ["--http-port", http, "--grpc-port", grpc, "--metrics-port", metrics]


def environment(home):
    return {**os.environ, "TRTK_STATE": str(home / "state"), "TRTK_CACHE": str(home / "cache"), "COLUMNS": "80"}


def command(*words):
    return [sys.executable, "-c", "from toolkit.cli import main; main(prog_name='trtk')", *words]


def trtk(home, *words):
    done = subprocess.run(
        command(*words), cwd=home, env=environment(home), check=False, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stdout, done.stderr


def foreground(home, *words):
    return subprocess.Popen(
        command(*words), cwd=home, env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def processes_of(home):
    """The processes that mention this test's folder, as `ps` sees them."""
    asked = ["ps", "-ww", "-eo", "stat=,args="]
    listing = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    return [line for line in listing.splitlines() if str(home) in line and "triton" in line and line[0] != "Z"]


def wait_until(is_so, timeout_s=20.0):
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.server
def test_a_detached_server_is_served_shown_logged_and_stopped(home, port_options):
    http = f"http://127.0.0.1:{port_options[1]}"

    code, out, said = trtk(home, "serve", "echo", "--detach", "--json", *port_options)

    endpoint = json.loads(out)
    assert (code, endpoint["name"], endpoint["http_url"]) == (0, "echo", http)
    assert endpoint["spec"]["backend"] == "embedded"
    assert said.splitlines()[0] == (
        "This is the embedded Triton 2.51 on the CPU: for development, tests and rehearsal."
    )
    body = json.dumps({"text_input": "Olá", "max_tokens": 1}).encode()
    with urllib.request.urlopen(f"{http}/v2/models/ensemble/generate", body, timeout=10) as answer:
        assert json.load(answer) == {"model_name": "ensemble", "model_version": "1", "text_output": "Olá"}

    code, out, said = trtk(home, "status")
    assert (code, said) == (0, "")
    assert re.fullmatch(
        rf"echo: ready, pid {endpoint['pid']}, up \d+ s\n"
        rf"  HTTP {http}  gRPC 127\.0\.0\.1:{port_options[3]}\n"
        r"  front  ready, pid \d+\n"
        rf"  models ensemble\n  log {endpoint['log_path']}\n",
        out,
    )
    (status,) = json.loads(trtk(home, "status", "--json")[1])["servers"]
    (front,) = status["companions"]
    assert {**front, "pid": 0} == {"name": "front", "pid": 0, "state": "ready", "restarts": 0, "url": ""}
    assert {**status, "uptime_s": 0} == {
        "endpoint": endpoint,
        "state": "ready",
        "uptime_s": 0,
        "models": ["ensemble"],
        "problem": "",
        "companions": [front],
        "restarts": 0,
        "last_failure": "",
        "is_supervised": True,
        "container": "",
    }

    code, out, _ = trtk(home, "logs", "-n", "1")
    assert (code, out) == (0, Path(endpoint["log_path"]).read_text().splitlines()[-1] + "\n")

    code, out, said = trtk(home, "stop")
    assert (code, said) == (0, "")
    assert re.fullmatch(r"Stopped echo in \d\.\d s\.\n", out)
    assert processes_of(home) == []
    assert trtk(home, "logs", "echo", "-n", "0")[0] == 0


@pytest.mark.server
@pytest.mark.parametrize(("options", "status"), [((), 400), (("--direct-http",), 500)], ids=["front", "direct"])
def test_what_triton_cannot_read_is_the_clients_fault_where_it_does_not_answer_itself(
    home, port_options, options, status
):
    assert trtk(home, "serve", "echo", "--detach", *options, *port_options)[0] == 0
    url = f"http://127.0.0.1:{port_options[1]}/v2/models/ensemble/generate"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, b"{", timeout=10)
    assert refused.value.code == status
    assert json.load(refused.value)["error"].startswith("failed to parse the request JSON buffer: ")


@pytest.mark.server
def test_a_front_that_is_killed_is_there_again_and_the_server_was_never_gone(home, port_options):
    endpoint = json.loads(trtk(home, "serve", "echo", "--detach", "--json", *port_options)[1])
    (front,) = json.loads(trtk(home, "status", "--json")[1])["servers"][0]["companions"]
    os.kill(front["pid"], signal.SIGKILL)

    def again():
        (one,) = json.loads(trtk(home, "status", "--json")[1])["servers"]
        (now,) = one["companions"]
        return (one["state"], now["restarts"], one["endpoint"]["pid"]) == ("ready", 1, endpoint["pid"])

    wait_until(again)
    body = json.dumps({"text_input": "a", "max_tokens": 1}).encode()
    with urllib.request.urlopen(f"{endpoint['http_url']}/v2/models/ensemble/generate", body, timeout=10) as answer:
        assert json.load(answer)["text_output"] == "a"


@pytest.mark.server
def test_a_foreground_server_ends_with_ctrl_c_and_exit_code_0(home, port_options):
    running = foreground(home, "serve", "echo", *port_options)
    try:
        lines = [running.stdout.readline() for _ in range(6)]
        wait_until(lambda: "ready" in trtk(home, "status")[1])
        running.send_signal(signal.SIGINT)
        out, said = running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()

    assert (running.returncode, out) == (0, "")
    assert re.fullmatch(r"echo is ready \(pid \d+\)\.\n", lines[0])
    assert lines[1:] == [
        f"  HTTP     http://127.0.0.1:{port_options[1]}\n",
        f"  gRPC     127.0.0.1:{port_options[3]}\n",
        f"  metrics  http://127.0.0.1:{port_options[5]}/metrics\n",
        f"  log      {home}/state/servers/echo.log\n",
        f"Try: curl -s http://127.0.0.1:{port_options[1]}/v2/models/ensemble/generate "
        """-d '{"text_input": "The capital of France is", "max_tokens": 32}'\n""",
    ]
    assert said.splitlines()[-3:] == ["Ctrl-C stops it.", "Stopping echo.", "Stopped echo."]
    wait_until(lambda: processes_of(home) == [])
    assert trtk(home, "status") == (0, "No server is running. `trtk serve` starts one.\n", "")


@pytest.mark.server
def test_a_printed_log_is_whole_and_status_checks_the_server(home, port_options):
    serving = foreground(home, "serve", "echo", "--print-log", *port_options)
    wait_until(lambda: trtk(home, "status", "--check")[0] == 0)

    serving.send_signal(signal.SIGTERM)
    _, said = serving.communicate(timeout=30)

    assert serving.returncode == 0
    assert "successfully loaded 'ensemble'\"" in said
    assert said.endswith("Stopping echo.\nStopped echo.\n")
    assert trtk(home, "status", "--check")[0] == 6


def test_a_printed_log_begins_again_when_it_is_long(tmp_path, monkeypatch, capsys):
    log = tmp_path / "log"
    monkeypatch.setattr(serve, "KEPT_LOG_BYTES", 8)
    log.write_text("one\n")
    assert serve._print_from(log, 0) == 4
    log.write_text("one\ntwo\nthree\n")
    assert (serve._print_from(log, 4), log.stat().st_size) == (0, 0)
    assert capsys.readouterr().err == "one\ntwo\nthree\n"


@pytest.mark.server
def test_a_foreground_server_does_not_outlive_a_trtk_that_is_killed(home, port_options):
    running = foreground(home, "serve", "echo", *port_options)
    try:
        assert running.stdout.readline().startswith("echo is ready")
        assert len(processes_of(home)) >= 2
    finally:
        running.kill()
        running.communicate()

    wait_until(lambda: processes_of(home) == [])
    wait_until(lambda: json.loads(trtk(home, "status", "--json")[1]) == {"servers": []})


@pytest.mark.server
def test_ctrl_c_while_starting_leaves_nothing_and_exits_130(home, port_options):
    (home / "echo/ensemble/1/model.py").write_text("import time\ntime.sleep(60)\n")
    running = foreground(home, "serve", "echo", "--detach", *port_options)
    try:
        wait_until(lambda: any("python_backend_stub" in line for line in processes_of(home)))
        running.send_signal(signal.SIGINT)
        out, said = running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()

    assert (running.returncode, out, said.splitlines()[-1]) == (130, "", "Interrupted.")
    wait_until(lambda: processes_of(home) == [])
    assert json.loads(trtk(home, "status", "--json")[1]) == {"servers": []}


@pytest.mark.server
def test_a_foreground_server_that_dies_is_an_error_with_code_6(home, port_options):
    running = foreground(home, "serve", "echo", "--restart", "no", *port_options)
    try:
        pid = int(re.search(r"pid (\d+)", running.stdout.readline())[1])
        os.kill(pid, signal.SIGKILL)
        _, said = running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()

    assert running.returncode == 6
    assert f"Error: The server 'echo' (pid {pid}) ended by SIGKILL." in said
    wait_until(lambda: processes_of(home) == [])


@pytest.mark.server
def test_a_foreground_server_that_dies_is_started_again_and_says_so(home, port_options):
    running = foreground(home, "serve", "echo", "--restart", "on-failure:1", *port_options)
    try:
        pid = int(re.search(r"pid (\d+)", running.stdout.readline())[1])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: "started again 1 time;" in trtk(home, "status")[1], timeout_s=60)
        wait_until(lambda: trtk(home, "status", "--check")[0] == 0, timeout_s=60)
        assert f"  started again 1 time; The server 'echo' (pid {pid}) ended by SIGKILL.\n" in trtk(home, "status")[1]
        again = json.loads(trtk(home, "status", "--json")[1])["servers"][0]["endpoint"]["pid"]
        os.kill(again, signal.SIGKILL)
        _, said = running.communicate(timeout=30)
    finally:
        running.kill()
        running.communicate()

    assert f"The server 'echo' (pid {pid}) ended by SIGKILL. Starting it again in 1 s (1 of 1).\n" in said
    assert f"\nError: The server 'echo' (pid {again}) ended by SIGKILL.\n" in said
    assert "\nIt was started again 1 times in a row.\n" in said
    assert running.returncode == 6
    wait_until(lambda: processes_of(home) == [])
    assert trtk(home, "status") == (0, "No server is running. `trtk serve` starts one.\n", "")


@pytest.mark.server
def test_a_broken_model_exits_6_and_its_log_can_be_read_afterwards(home, port_options):
    (home / "echo/ensemble/1/model.py").write_text("import nosuchlibrary\n")

    code, out, said = trtk(home, "serve", "echo", "--detach", *port_options)

    assert (code, out) == (6, "")
    assert (
        "\nError: Model 'ensemble' could not be loaded: ModuleNotFoundError: No module named 'nosuchlibrary'.\n" in said
    )
    assert said.endswith("\nHint: `trtk logs echo` shows its log.\n")
    assert "nosuchlibrary" in trtk(home, "logs", "echo")[1]


def test_a_dry_run_says_the_command_and_writes_nothing(home, port_options):
    code, out, _ = trtk(home, "serve", "echo", "--dry-run", "--json", *port_options)

    document = json.loads(out)
    assert code == 0
    assert f"--model-repository={home}/echo" in document["command"]
    (own_http,) = (int(word[12:]) for word in document["command"] if word.startswith("--http-port="))
    assert "--http-address=127.0.0.1" in document["command"]
    assert (own_http == int(port_options[1]), 20000 <= own_http < 32768) == (False, True)
    direct = json.loads(trtk(home, "serve", "echo", "--dry-run", "--json", "--direct-http", *port_options)[1])
    assert f"--http-port={port_options[1]}" in direct["command"]
    chosen = trtk(home, "serve", "echo", "--dry-run", "--json", "--triton-http-port", "29876", *port_options)[1]
    assert "--http-port=29876" in json.loads(chosen)["command"]
    code, _, said = trtk(home, "serve", "echo", "--dry-run", "--direct-http", "--triton-http-port", "29876")
    assert (code, "--triton-http-port 29876 is for what Triton listens on behind the front" in said) == (2, True)
    assert sorted(document["environment"]) == ["LD_LIBRARY_PATH", "PATH", "TRTK_SERVER_ID", "TRTK_STOP_FILE"]
    assert not (home / "state").exists()
    assert not (home / "cache").exists()


def test_a_unit_runs_the_same_command_with_what_was_said(home, tmp_path):
    words = ["--http-port", "9100", "--name", "mine", "--restart", "on-failure:2", "--memory-limit", "4g"]

    code, out, _ = trtk(home, "serve", "echo", "--emit", "systemd-user", *words)

    (line,) = [line for line in out.splitlines() if line.startswith("ExecStart=")]
    program, *rest = line.removeprefix("ExecStart=").split(" serve ")
    assert (code, rest) == (0, ["echo --name mine --http-port 9100 --restart no"])
    assert Path(program.split()[0]).is_absolute()
    assert {"MemoryMax=4294967296", "StartLimitBurst=3", f"WorkingDirectory={home}"} < set(out.splitlines())
    written = trtk(home, "serve", "echo", "--emit", "systemd-user", "-o", tmp_path / "x.service", *words)
    assert (written[0], written[1], (tmp_path / "x.service").read_text()) == (0, "", out)
    assert not (home / "state").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--restart", "always"], "--restart always is no policy."),
        (
            ["--image", "x", "--cpus", "2"],
            "--image, --cpus is for containers; this server is a process of this machine.",
        ),
        (["--emit", "compose"], "A compose file runs containers."),
        (["--backend", "docker", "--image", "x"], "{home}/echo says of no engine that it is for"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_do_not_fit_are_refused(home, words, said):
    code, out, err = trtk(home, "serve", "echo", *words)

    assert (code, out) == (2, "")
    assert f"Error: {said.format(home=home)}" in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["status"], 0, ""),
        (["status", "--check"], 6, "Error: No server is running.\nHint: `trtk serve` starts one.\n"),
        (["stop"], 2, "Error: No server is running.\nHint: `trtk serve` starts one.\n"),
        (["stop", "x"], 2, "Error: There is no server named 'x'.\nHint: `trtk status` lists them.\n"),
        (["stop", "x", "--all"], 2, "Error: Both a name (x) and --all were given.\nHint: Give one of them.\n"),
        (["stop", "--all"], 0, ""),
        (["logs"], 2, "Error: No server is running.\nHint: `trtk serve` starts one.\n"),
        (
            ["serve", "engines/none"],
            2,
            "Error: There is no folder engines/none.\nHint: `trtk build` makes one; `ls engines` lists them.\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_without_a_server_each_command_says_so(home, words, code, said):
    assert trtk(home, *words)[::2] == (code, said)
