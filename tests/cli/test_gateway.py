"""`trtk serve --openai`, `trtk keys` and `trtk audit` on the command line."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from toolkit import serve
from toolkit.cli import main
from toolkit.errors import ServerError
from toolkit.gateway.audit import AuditLog

ECHO = Path(__file__).parents[1] / "serve" / "echo_repository"


@pytest.fixture
def trtk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize(
    ("options", "sentence", "hint"),
    [
        (
            ("--audit", "a.jsonl"),
            "--audit is for the OpenAI-compatible endpoint.",
            "Add --openai.",
        ),
        (
            ("--openai", "--openai-host", "0.0.0.0"),
            "--openai would listen on 0.0.0.0, where other machines reach it.",
            "Add --allow-remote and --api-keys FILE, or leave --openai-host out.",
        ),
        (
            ("--openai", "--openai-host", "0.0.0.0", "--allow-remote"),
            "--openai on 0.0.0.0 needs keys: whoever reaches it could use it.",
            "trtk keys add NAME makes one; then --api-keys FILE.",
        ),
        (
            ("--openai", "--api-keys", "none.json"),
            "There is no key file none.json.",
            "`trtk keys add NAME` makes the file and a key.",
        ),
    ],
)
def test_nobody_is_let_in_by_mistake(trtk, options, sentence, hint):
    done = trtk("serve", ECHO, "--dry-run", *options)

    assert (done.exit_code, done.stderr) == (2, f"Error: {sentence}\nHint: {hint}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("serve", ECHO, "--openai", "--max-requests", "0"), "'--max-requests': 0 is not in the range x>=1"),
        (("serve", ECHO, "--openai", "--max-queue", "-1"), "'--max-queue': -1 is not in the range x>=0"),
        (("serve", ECHO, "--openai", "--request-timeout", "0"), "'--request-timeout': 0.0 is not in the range x>0"),
        (("serve", ECHO, "--queue", "0"), "'--queue': 0 is not in the range x>=1"),
        (("audit", "tail", "audit.jsonl", "--lines", "-1"), "'--lines': -1 is not in the range x>=1"),
        (("keys", "add", "", "--file", "keys.json"), "'' is no name for a key."),
        (("keys", "add", "a\x1b[2Jb", "--file", "keys.json"), "'a\\x1b[2Jb' is no name for a key."),
    ],
)
def test_numbers_and_names_that_mean_nothing_are_refused(trtk, arguments, said):
    done = trtk(*arguments, *(["--dry-run"] if arguments[0] == "serve" else []))

    assert (done.exit_code, said in done.stderr) == (2, True), done.stderr


def test_a_key_that_is_taken_back_is_named_in_one_document(trtk):
    trtk("keys", "add", "search", "--file", "keys.json")
    done = trtk("keys", "rm", "search", "--file", "keys.json", "--json")

    assert (done.exit_code, json.loads(done.stdout)["removed"]["name"]) == (0, "search")
    assert json.loads(trtk("keys", "ls", "--file", "keys.json", "--json").stdout)["keys"] == []


def test_one_server_that_cannot_be_stopped_keeps_none_of_the_others(trtk, monkeypatch):
    def stop(name, *, timeout_s):
        if name == "a" and timeout_s == 1:
            raise ServerError("Server 'a' could not be killed.")
        return serve.Stopped(name=name, was_alive=True, duration_s=1.0, killed=0, shared_memory_removed=0)

    named = [SimpleNamespace(endpoint=SimpleNamespace(name=name)) for name in ("a", "b")]
    monkeypatch.setattr(serve, "running", lambda: named)
    monkeypatch.setattr(serve, "stop", stop)
    done = trtk("stop", "--all", "--timeout", "1", "--json")

    assert [one["name"] for one in json.loads(done.stdout)["stopped"]] == ["b"]
    assert (done.exit_code, done.stderr) == (6, "Error: Server 'a' could not be killed.\n")


def test_a_key_goes_to_stdout_once_and_its_file_stays_private(trtk, tmp_path):
    added = trtk("keys", "add", "search", "--file", "keys.json", "--json")
    document = json.loads(added.stdout)

    assert (document["name"], document["file"]) == ("search", str(tmp_path / "keys.json"))
    assert document["key"] not in (tmp_path / "keys.json").read_text() + added.stderr
    listed = json.loads(trtk("keys", "ls", "--file", "keys.json", "--json").stdout)
    assert [(key["name"], document["key"].startswith(f"trtk-{key['id']}-")) for key in listed["keys"]] == [
        ("search", True)
    ]
    assert trtk("keys", "rm", "search", "--file", "keys.json").exit_code == 0
    assert trtk("keys", "ls", "--file", "keys.json").stdout == f"{tmp_path / 'keys.json'} holds no key.\n"


def test_a_log_is_verified_and_its_break_named(trtk, tmp_path):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path, is_required=True)
    shown = {"key_id": "3f9a0c11", "model": "demo", "endpoint": "chat", "outcome": "ok", "status": 200}
    log.append({"kind": "start"})
    log.append(
        {"kind": "request", "time": "T", **shown, "input_tokens": 7, "output_tokens": None, "duration_ms": 12.34}
    )
    log.close()

    done = trtk("audit", "verify", path)
    head = json.loads(path.read_text().splitlines()[-1])["hash"]
    assert done.stdout == f"{path}: 2 records of 1 requests are as they were written.\nIts head is {head}\n"
    assert trtk("audit", "tail", path).stdout.split() == (
        ["T", "3f9a0c11", "demo", "chat", "ok", "200", "7>-", "tokens", "12.3", "ms"]
    )
    path.write_text(path.read_text().replace('"chat"', '"Chat"'))
    broken = trtk("audit", "verify", path)
    assert (broken.exit_code, broken.stderr) == (
        7,
        f"Error: {path}, line 2: this is no record, or one that was changed.\n"
        "Hint: The 1 records before it are as they were written.\n",
    )
