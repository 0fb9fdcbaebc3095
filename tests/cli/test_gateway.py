"""`trtk serve --openai`, `trtk keys` and `trtk audit` on the command line."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from toolkit.cli import main
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
