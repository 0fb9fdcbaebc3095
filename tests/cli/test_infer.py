"""Asking a scripted server whose words and clock are known."""

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from toolkit.cli import main, talking

MOCK = Path(__file__).parents[1] / "bench" / "mock_triton.py"
TRTK = [sys.executable, "-c", "from toolkit.cli import main; main()"]
#: What prompt_toolkit begins each prompt with.
PROMPT = "\x1b[?2004h"
SCHEMES = ["grpc", "http", "openai+http"]


@pytest.fixture
def url(tmp_path):
    """Start a scripted server and return its address for a scheme."""
    with contextlib.ExitStack() as stack:

        def start(scheme="grpc", **script) -> str:
            process = subprocess.Popen(
                [sys.executable, str(MOCK), json.dumps(script), str(tmp_path / "log")],
                stdout=subprocess.PIPE,
                text=True,
            )
            stack.callback(process.stdout.close)
            stack.callback(process.wait)
            stack.callback(process.kill)
            ports = json.loads(process.stdout.readline())
            port = ports["grpc" if scheme == "grpc" else "http"]
            return f"{scheme}://127.0.0.1:{port}{'/v1' if scheme.startswith('openai') else ''}"

        yield start


def trtk(*arguments, stdin=None):
    done = CliRunner().invoke(main, arguments, input=stdin, catch_exceptions=False)
    return done.exit_code, done.stdout, done.stderr


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("stream", ["--stream", "--no-stream"])
def test_the_text_is_on_stdout_and_the_counts_on_stderr(url, scheme, stream):
    code, out, err = trtk("infer", "Hi", "--url", url(scheme), "--max-tokens", "5", stream)
    assert (code, out) == (0, "word word word word word \n")
    assert err.startswith("7 tokens in, 5 tokens out, first after ")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_times_are_those_of_the_servers_timetable(url, scheme):
    code, out, err = trtk("infer", "Hi", "--url", url(scheme, ttft_s=0.3, gap_s=0.05), "--max-tokens", "11", "--json")
    reply = json.loads(out)
    assert (code, err, reply["text"], reply["output_tokens"]) == (0, "", "word " * 11, 11)
    assert reply["ttft_ms"] == pytest.approx(300, abs=250)
    assert reply["tpot_ms"] == pytest.approx(50, abs=20)
    assert (reply["model"], reply["finish_reason"]) == (
        ("mock", "length") if scheme.startswith("openai") else ("ensemble", None)
    )


def test_a_prompt_comes_from_a_file_or_a_pipe_without_its_last_line_break(url, tmp_path):
    from toolkit.cli.infer import prompt_text

    (tmp_path / "question").write_bytes("Grüße\n\n".encode())
    assert prompt_text(f"@{tmp_path}/question") == "Grüße\n"
    assert prompt_text("Hi\n") == "Hi\n"
    assert trtk("infer", "--url", url(), "--max-tokens", "1", stdin="Hi\n")[:2] == (0, "word \n")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["infer", ""], 2, "Error: The prompt is empty."),
        (["infer", "@/nowhere"], 2, "Error: The prompt's file /nowhere cannot be read: No such file or directory."),
        (["infer", "Hi", "--system", "Be brief."], 2, "Error: --system is for a chat."),
        (
            ["infer", "Hi", "--name", "a", "--url", "grpc://b:1"],
            2,
            "Error: Both --name a and --url grpc://b:1 were given.",
        ),
        (["infer", "Hi", "--url", "localhost:8001"], 2, "Error: 'localhost:8001' is not a URL."),
        (["infer", "Hi", "--url", "ftp://localhost"], 2, "Error: There is no protocol named 'ftp'."),
        (["infer", "Hi"], 4, "Error: No server is running here."),
        (["infer", "Hi", "--name", "a"], 4, "Error: No server is running here, and none is named 'a'."),
        (["infer", "Hi", "--url", "grpc://127.0.0.1:9"], 6, "Error: No server answers at grpc://127.0.0.1:9: "),
        (["infer", "Hi", "--url", "http://127.0.0.1:9"], 6, "Error: No server answers at http://127.0.0.1:9: "),
        (["chat"], 4, "Error: No server is running here."),
        (["top"], 4, "Error: No server is running here."),
        (
            ["top", "--once", "--url", "http://127.0.0.1:9/metrics"],
            6,
            "Error: http://127.0.0.1:9/metrics is not reached: ",
        ),
        (["monitoring"], 4, "Error: No server is running here."),
        (["monitoring", "--for", "cpu"], 2, "Error: --for needs to know where the metrics are."),
        (["monitoring", "--release", "26.07"], 2, "Error: --address, --gateway and --release belong to --for."),
        (
            ["monitoring", "--for", "cpu", "--address", "nope"],
            2,
            "Error: 'http://nope/metrics' is no address of metrics.",
        ),
        (["monitoring", "a", "--for", "cpu"], 2, "Error: --for asks no server, so it takes no NAME and no --url."),
    ],
)
def test_what_cannot_be_meant_or_is_not_there_is_a_sentence_and_a_hint(arguments, code, said):
    returned, _, err = trtk(*arguments)
    assert (returned, err.startswith(said), "\nHint: " in err) == (code, True, True), err


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_error_after_some_text_ends_with_6_and_the_text_stays(url, scheme):
    code, out, err = trtk("infer", "Hi", "--url", url(scheme, fail_every=1), "--max-tokens", "9")
    assert (code, out) == (6, "word word ")
    assert err.startswith("Error: The server refused: CUDA out of memory\nHint: ")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_dies_is_told_from_one_that_refuses(url, scheme):
    code, out, err = trtk("infer", "Hi", "--url", url(scheme, die_at_request=1), "--max-tokens", "9")
    assert (code, out) == (6, "word word ")
    assert "The connection broke: the server closed it.\nHint: `trtk status`" in err


@pytest.mark.parametrize("scheme", ["grpc", "http"])
def test_an_answer_without_an_end_is_given_up(url, scheme):
    began = time.monotonic()
    code, _, err = trtk("infer", "Hi", "--url", url(scheme, is_never_final=True), "--timeout", "1", "--max-tokens", "2")
    assert (code, time.monotonic() - began < 20) == (6, True)
    assert "No whole answer within 1 s.\nHint: Give it longer with --timeout" in err


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (401, 4, "lets nobody in without a key: HTTP 401: No.\nHint: Put one into $OPENAI_API_KEY."),
        (429, 6, "The server refused: HTTP 429: No.\nHint: Ask again in a while;"),
        (400, 6, "The server refused: HTTP 400: No.\nHint: Change what is asked;"),
    ],
)
def test_an_openai_endpoint_says_no_in_several_ways(url, status, code, said):
    returned, out, err = trtk("infer", "Hi", "--url", url("openai+http", status=status))
    assert (returned, out) == (code, "")
    assert said in err


def test_the_wrong_port_is_named(url):
    grpc_port_over_http = url("grpc").replace("grpc://", "http://")
    code, _, err = trtk("infer", "Hi", "--url", grpc_port_over_http)
    assert (code, "Traceback" in err, "\nHint: " in err) == (6, False, True)


def test_ctrl_c_keeps_the_text_and_exits_130(url):
    command = [*TRTK, "infer", "Hi", "--url", url(gap_s=0.2), "--max-tokens", "1000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.read(5) == "word "
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "Interrupted; the server was told to stop.\n")
    assert set(out.split()) <= {"word"}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_reader_that_leaves_ends_it_without_a_word(url, scheme):
    command = [*TRTK, "infer", "Hi", "--url", url(scheme, gap_s=0.02), "--max-tokens", "100000"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.read(5) == "word "
    process.stdout.close()
    assert process.wait(30) == 1
    assert process.stderr.read() == ""
    process.stderr.close()


def test_a_conversation_in_a_pipe_is_a_turn_a_line(url):
    code, out, err = trtk("chat", "--url", url("openai+http"), "--max-tokens", "2", stdin="One\n\nTwo\n")
    assert (code, out) == (0, "word word \nword word \n")
    assert err.count("7 tokens in, 2 tokens out") == 2


def test_a_model_without_messages_cannot_chat(url):
    code, out, err = trtk("chat", "--url", url("grpc"), stdin="Hi\n")
    assert (code, out) == (6, "")
    assert err.startswith("Error: ensemble has no input for messages.\nHint: Build the repository again")


def test_an_answer_cannot_command_the_terminal():
    assert "\x1b]0;title\x07 \x9b31m tab\tline\n".translate(talking.SHOWN) == "␛]0;title␇ ␡31m tab\tline\n"


class Typist:
    """`trtk chat` on a terminal, and somebody who types."""

    def __init__(self, *arguments):
        self.leader, follower = pty.openpty()
        self.process = subprocess.Popen(
            [*TRTK, "chat", *arguments],
            stdin=follower,
            stdout=follower,
            stderr=follower,
            env={**os.environ, "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "80", "LINES": "24"},
            start_new_session=True,
        )
        os.close(follower)
        self.seen = ""

    def until(self, text, *, times=1):
        deadline = time.monotonic() + 60
        while self.seen.count(text) < times and time.monotonic() < deadline:
            if select.select([self.leader], [], [], 1)[0]:
                self.seen += os.read(self.leader, 65536).decode(errors="replace")
        assert self.seen.count(text) >= times, self.seen

    def type(self, line):
        os.write(self.leader, f"{line}\r".encode())

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.leader)


@pytest.fixture
def typist():
    """Start a chat on a terminal; it is gone when the test ends."""
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            made = Typist(*arguments)
            stack.callback(made.close)
            return made

        yield start


def test_ctrl_c_stops_the_answer_and_not_the_conversation(url, typist, tmp_path):
    chat = typist("--url", url("openai+http", gap_s=0.2), "--max-tokens", "1000")
    chat.until(PROMPT)
    chat.type("Hi")
    chat.until("word word")
    chat.process.send_signal(signal.SIGINT)
    chat.until("Stopped.")
    chat.until(PROMPT, times=2)
    chat.type(f"/save {tmp_path}/said.json")
    chat.until("Saved to")
    chat.until(PROMPT, times=3)
    chat.type("/nothing")
    chat.until("/nothing means nothing here.")
    chat.until(PROMPT, times=4)
    chat.type("/quit")
    assert chat.process.wait(30) == 0
    user, assistant = json.loads((tmp_path / "said.json").read_text())["messages"]
    assert user == {"role": "user", "content": "Hi"}
    assert set(assistant["content"].split()) == {"word"}


def test_a_refused_turn_does_not_end_the_conversation(url, typist):
    chat = typist("--url", url("openai+http", fail_every=2), "--max-tokens", "4")
    chat.until(PROMPT)
    for times, line in enumerate(("One", "Two", "Three"), start=1):
        chat.type(line)
        chat.until("first after" if times != 2 else "Error: The server refused: CUDA out of memory")
        chat.until(PROMPT, times=times + 1)
    chat.type("/reset")
    chat.until("Begun again.")
    chat.until(PROMPT, times=5)  # before it the terminal would take Ctrl-D itself
    os.write(chat.leader, b"\x04")
    assert chat.process.wait(30) == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--max-tokens", str(2**31)),
        ("--top-k", str(2**31)),
        ("--seed", str(2**64)),
        ("--temperature", "1e300"),
        ("--stop", "\udcff"),
    ],
)
def test_what_a_request_cannot_hold_is_refused_before_it_is_sent(option, value):
    code, out, err = trtk("infer", "Hi", "--url", "grpc://127.0.0.1:9", option, value)
    assert (code, out) == (2, "")
    assert "range" in err or "not UTF-8" in err


def test_bytes_that_are_no_text_are_said_of_the_prompt_and_of_a_turn():
    code, _, err = trtk("infer", "bad \udcff", "--url", "grpc://127.0.0.1:9")
    assert (code, err.splitlines()[0]) == (2, "Error: 'bad ?' is not UTF-8.")
    code, _, err = trtk("chat", "--url", "grpc://127.0.0.1:9", stdin=b"a\xff\n")
    assert (code, err.splitlines()[-2]) == (2, "Error: 'a?' is not UTF-8.")
