"""The daemon that this user's `docker` would talk to is found, or it is said why not."""

import hashlib
import json
import os
import socket

import pytest

from toolkit import containers
from toolkit.containers.daemon import connect
from toolkit.errors import MissingError


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """No variable and no configuration of Docker but what a test makes."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "config").mkdir()
    return tmp_path


def test_a_daemon_that_does_not_answer_is_named_with_the_reason(bare, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{bare}/no.sock")
    with pytest.raises(MissingError) as caught:
        connect()
    assert str(caught.value) == f"No Docker daemon answers at unix://{bare}/no.sock: No such file or directory."
    assert caught.value.hint.startswith("Start it: sudo systemctl start docker.")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may use every socket")
def test_a_socket_without_permission_is_told_with_the_group(bare, monkeypatch):
    path = bare / "closed.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        path.chmod(0)
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        with pytest.raises(MissingError, match="Permission denied") as caught:
            connect()
    assert "usermod -aG docker" in caught.value.hint


@pytest.mark.usefixtures("bare")
def test_a_context_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setenv("DOCKER_CONTEXT", "elsewhere")
    with pytest.raises(MissingError, match="There is no Docker context 'elsewhere'"):
        connect()


@pytest.mark.docker
def test_the_current_context_names_the_daemon(docker_daemon, bare):
    """As `docker context use` leaves it."""
    name = "stand-in"
    meta = bare / "config" / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    endpoint = {"Host": docker_daemon.host, "SkipTLSVerify": False}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": {"docker": endpoint}}))
    (bare / "config" / "config.json").write_text(json.dumps({"currentContext": name}))

    found = containers.connect()
    found.close()

    assert (found.host, found.version) == (docker_daemon.host, docker_daemon.version)
