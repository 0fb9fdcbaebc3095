"""The embedded backend: what it writes, what it runs, what it refuses."""

import dataclasses
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from toolkit import serve
from toolkit.errors import MissingError, UnknownName, UsageError
from toolkit.serve import backend, libpython, starting
from toolkit.serve.backend import Identity
from toolkit.serve.backends import embedded
from toolkit.specs import ServeSpec, no_progress

WHO = Identity(server_id="abc", secret="5ec2e7")
SPEC = ServeSpec(name="x", repository="/r", backend="embedded", http_port=9000, grpc_port=9001, metrics_port=9002)


def test_every_address_is_loopback_and_what_writes_or_maps_memory_is_closed():
    argv = backend.pick("auto").launch(SPEC, WHO).argv

    assert Path(argv[0]).name == "tritonserver"
    assert [flag for flag in argv if "address" in flag or "-port" in flag] == [
        "--http-address=127.0.0.1",
        "--http-port=9000",
        "--grpc-address=127.0.0.1",
        "--grpc-port=9001",
        "--metrics-address=127.0.0.1",
        "--metrics-port=9002",
    ]
    assert "--http-restricted-api=model-repository,shared-memory,trace,logging:closed=5ec2e7" in argv
    assert "--grpc-restricted-protocol=model-repository,shared-memory,trace,logging:closed=5ec2e7" in argv
    assert "--model-control-mode=none" in argv


def test_the_backend_directory_is_made_once_in_the_cache_and_its_libraries_resolve(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "cache"))
    chosen = backend.pick("embedded")
    launch = chosen.launch(SPEC, WHO)
    assert not (tmp_path / "cache").exists()

    chosen.prepare(SPEC, no_progress)
    (made,) = (tmp_path / "cache/triton").glob("*-py*")  # a fetched libpython may lie beside it
    before = made.stat().st_mtime_ns
    chosen.prepare(SPEC, no_progress)

    (flag,) = [flag for flag in launch.argv if flag.startswith("--backend-directory=")]
    folder = Path(flag.partition("=")[2]) / "python"
    assert sorted(path.name for path in folder.iterdir()) == [
        "libtriton_python.so",
        "triton_python_backend_stub",
        "triton_python_backend_utils.py",
    ]
    assert [path.name for path in (tmp_path / "cache/triton").glob("*-py*")] == [made.name]
    launch = chosen.launch(SPEC, WHO)  # now it knows of a libpython that was fetched
    assert made.stat().st_mtime_ns == before
    for name in ("libtriton_python.so", "triton_python_backend_stub"):
        libraries = subprocess.run(
            ["ldd", str(folder / name)],
            env={**os.environ, **launch.environment},
            check=True,
            capture_output=True,
            text=True,
        )
        assert "not found" not in libraries.stdout


def test_a_python_without_its_shared_library_is_told_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no apt-get here
    stub = tmp_path / "stub"
    stub.write_text(
        "#!/bin/sh\n"
        "echo '/x/stub: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file: "
        "No such file or directory' >&2\nexit 127\n"
    )
    stub.chmod(0o755)

    with pytest.raises(MissingError) as refused:
        embedded._need_stub_runs(stub)

    assert str(refused.value) == ("Triton's Python backend needs libpython3.11.so.1.0, which is not on this machine.")
    assert refused.value.hint.startswith("On Debian and Ubuntu: apt-get install libpython3.")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("apt-get"), reason="apt-get is not here")
def test_a_missing_libpython_is_downloaded_into_the_cache_without_root(tmp_path, monkeypatch):
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path))

    assert libpython.fetch()

    library = tmp_path / "triton" / f"libpython{libpython.PYTHON}" / libpython.LIBRARY
    assert library.read_bytes()[:4] == b"\x7fELF"
    assert library.parent in libpython.folders()
    assert [path.name for path in (tmp_path / "triton").iterdir()] == [library.parent.name]


def test_packages_that_the_stub_cannot_see_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("site.getusersitepackages", lambda: str(tmp_path))

    with pytest.raises(MissingError, match="which Triton's Python processes do not see"):
        embedded._need_visible_packages(tmp_path / "pytriton" / "tritonserver")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "::", "example.org"])
def test_an_address_that_others_can_reach_is_refused(host):
    with pytest.raises(UsageError, match=r"can be reached from other machines, .*older than the security floor"):
        backend.pick("embedded").check(dataclasses.replace(SPEC, host=host))


def test_an_address_that_others_can_reach_is_served_when_that_is_asked_for():
    backend.pick("embedded").check(dataclasses.replace(SPEC, host="0.0.0.0", is_remote_allowed=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_loopback_addresses_are_served(host):
    backend.pick("embedded").check(dataclasses.replace(SPEC, host=host))


@pytest.mark.parametrize("folder", ["my engine", "a;b", "$(id)", "it's", "a&b"])
def test_a_path_that_is_more_than_one_word_to_the_shell_is_refused(tmp_path, monkeypatch, folder):
    spec = ServeSpec(name="x", repository=str(tmp_path / folder), backend="embedded")
    with pytest.raises(UsageError, match="means something to the shell"):
        embedded.check(spec)

    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / folder))
    with pytest.raises(UsageError, match="means something to the shell") as caught:
        embedded.prepare()
    assert "TRTK_CACHE" in caught.value.hint


def test_an_unknown_backend_is_named():
    with pytest.raises(UnknownName, match="no serving backend named 'embeded'") as refused:
        backend.pick("embeded")
    assert "embedded" in refused.value.hint


def test_a_repository_that_cannot_be_served_is_refused_before_anything_starts(tmp_path):
    def refusal(**changes):
        with pytest.raises(UsageError) as refused:
            starting.check(dataclasses.replace(SPEC, repository=str(tmp_path / "r"), **changes))
        return str(refused.value)

    assert refusal() == f"There is no model repository at {tmp_path}/r."
    (tmp_path / "r/a").mkdir(parents=True)
    assert refusal() == f"{tmp_path}/r holds no model: no folder in it has a config.pbtxt."
    (tmp_path / "r/a/config.pbtxt").write_text("")
    assert refusal() == f"{tmp_path}/r has no model 'ensemble' to probe; it has a."
    assert serve.running() == ()


def test_behind_a_front_triton_listens_on_a_free_loopback_port_of_its_own():
    from toolkit.serve import ports as chosen

    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        spec = chosen.with_own_http(dataclasses.replace(SPEC, host="0.0.0.0", http_port=busy))
    assert spec.http_port == busy
    assert 20000 + busy % 10000 <= spec.triton_http_port < 32000
    assert chosen.triton_http(spec) == ("127.0.0.1", spec.triton_http_port)
    with socket.create_server(("127.0.0.1", spec.triton_http_port)):
        again = chosen.with_own_http(dataclasses.replace(spec, triton_http_port=0))
        assert again.triton_http_port != spec.triton_http_port
        with pytest.raises(MissingError, match=f"^Port {spec.triton_http_port} is taken by pid {os.getpid()} "):
            chosen.check(dataclasses.replace(spec, host="127.0.0.1", grpc_port=1 + busy, metrics_port=2 + busy))


@pytest.mark.parametrize(("ports", "message"), [((1, 2, 2), "The ports must differ"), ((0, 1, 2), "not a port")])
def test_ports_that_cannot_be_meant_are_refused(ports, message):
    from toolkit.serve import ports as checked

    http, grpc, metrics = ports
    with pytest.raises(UsageError, match=message):
        checked.check(dataclasses.replace(SPEC, http_port=http, grpc_port=grpc, metrics_port=metrics))
