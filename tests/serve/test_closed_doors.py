"""What a caller without the secret cannot do to a real server: come from elsewhere, change it, read files with it."""

import base64
import http.client
import json
import os
import shutil
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from tests.e2e.conftest import free_ports
from tests.serve.conftest import ECHO
from toolkit import processes, serve
from toolkit.serve import records
from toolkit.serve.backend import MARKER
from toolkit.specs import ServeSpec

pytestmark = pytest.mark.server
#: 127.0.0.1, and the same as gRPC's IPv6 socket writes it.
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
CODE = base64.b64encode(b"import os; os._exit(0)").decode()
CONFIG = json.dumps({"name": "evil", "backend": "python", "max_batch_size": 0})
OVERRIDE = {"parameters": {"config": CONFIG, "file:1/model.py": CODE}}
#: Method, path, body of what reads or changes a server.
CLOSED = [
    ("POST", "/v2/repository/index", {}),
    ("POST", "/v2/repository/models/ensemble/load", {}),
    ("POST", "/v2/repository/models/evil/load", OVERRIDE),
    ("POST", "/v2/repository/models/ensemble/unload", {}),
    ("POST", "/v2/systemsharedmemory/region/x/register", {"key": "/x", "offset": 0, "byte_size": 8}),
    ("GET", "/v2/systemsharedmemory/status", None),
    ("GET", "/v2/cudasharedmemory/status", None),
    ("GET", "/v2/logging", None),
    ("POST", "/v2/logging", {"log_file": "/tmp/trtk-evil.log"}),
    ("GET", "/v2/trace/setting", None),
    ("POST", "/v2/trace/setting", {"trace_level": ["TIMESTAMPS"], "trace_file": "/tmp/trtk-evil.json"}),
]
#: Names that would leave the repository if one of them was a path.
TRAVERSALS = ["../../canary", "..%2f..%2fcanary", "%2e%2e%2f%2e%2e%2fcanary", "ensemble%00/../../canary", "{canary}"]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(record, repository, canary) of a server; the canary lies beside the repository."""
    place = tmp_path_factory.mktemp("closed")
    repository = shutil.copytree(ECHO, place / "echo" / "model_repository")
    canary = place / "canary"
    canary.write_text("the canary sings")
    http_port, grpc_port, metrics_port = free_ports(3)
    spec = ServeSpec(
        name="closed",
        repository=str(repository),
        backend="embedded",
        http_port=http_port,
        grpc_port=grpc_port,
        metrics_port=metrics_port,
        exit_timeout_s=2,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRTK_STATE", str(place / "state"))
        patch.setenv("TRTK_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        serve.start(spec)
        yield records.read("closed"), repository, canary
        serve.stop("closed", timeout_s=0)


def ask(record, method, path, body=None, headers=None):
    """Send a path as it is, which polite clients do not."""
    connection = http.client.HTTPConnection(urlsplit(record.endpoint.http_url).netloc, timeout=10)
    try:
        connection.request(method, path, None if body is None else json.dumps(body), headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def listening_addresses(one):
    """The local addresses, as /proc/net/tcp writes them, on which a process listens."""
    inodes = set()
    for descriptor in (processes.PROC / str(one.pid) / "fd").iterdir():
        if (target := str(descriptor.readlink())).startswith("socket:["):
            inodes.add(target[8:-1])
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in (processes.PROC / str(one.pid) / "net" / table).read_text().splitlines()[1:]
    ]
    return {row[1].rsplit(":", 1)[0] for row in rows if row[3] == processes.LISTENING and row[9] in inodes}


def test_no_process_of_a_server_listens_beyond_loopback(server):
    record, _, _ = server
    members = processes.marked(MARKER, record.server_id)

    assert len(members) >= 2
    assert set().union(*map(listening_addresses, members)) <= LOOPBACK
    assert listening_addresses(record.process)


@pytest.mark.parametrize(("method", "path", "body"), CLOSED, ids=lambda value: value if isinstance(value, str) else "")
def test_over_http_only_the_holder_of_the_secret_gets_in(server, method, path, body):
    record, _, _ = server
    # What the server tells everybody opens nothing.
    name = json.loads(ask(record, "GET", "/v2")[1])["name"]
    assert name == f"trtk-{record.server_id}"

    for guess in (None, name, record.server_id, ""):
        status, said = ask(record, method, path, body, {"closed": guess} if guess is not None else {})
        assert (status, json.loads(said)) == (
            403,
            {"error": "This API is restricted, expecting header 'closed'"},
        )
    if path == "/v2/repository/index":
        assert ask(record, method, path, body, {"closed": record.secret})[0] == 200


GRPC = {
    "load": lambda client, headers: client.load_model("ensemble", headers=headers),
    "load with code": lambda client, headers: client.load_model(
        "evil", headers=headers, config=CONFIG, files={"file:1/model.py": b"import os; os._exit(0)"}
    ),
    "unload": lambda client, headers: client.unload_model("ensemble", headers=headers),
    "index": lambda client, headers: client.get_model_repository_index(headers=headers),
    "shared memory": lambda client, headers: client.register_system_shared_memory("x", "/x", 8, headers=headers),
    "cuda shared memory": lambda client, headers: client.get_cuda_shared_memory_status(headers=headers),
    "trace": lambda client, headers: client.update_trace_settings(
        settings={"trace_level": ["TIMESTAMPS"]}, headers=headers
    ),
    "logging": lambda client, headers: client.get_log_settings(headers=headers),
    "log to a file": lambda client, headers: client.update_log_settings({"log_file": "/tmp/evil"}, headers=headers),
}


@pytest.mark.parametrize("call", GRPC.values(), ids=GRPC)
def test_over_grpc_only_the_holder_of_the_secret_gets_in(server, call):
    record, _, _ = server
    with grpc.InferenceServerClient(record.endpoint.grpc_url) as client:
        for headers in ({}, {"triton-grpc-protocol-closed": record.server_id}):
            with pytest.raises(InferenceServerException) as refused:
                call(client, headers)
            assert refused.value.status() == "StatusCode.UNAVAILABLE"
            assert "This protocol is restricted" in refused.value.message()


def test_with_the_secret_too_nothing_is_loaded_into_a_server_of_fixed_models(server):
    record, repository, _ = server

    for path, body in ((f"/v2/repository/models/{name}/load", OVERRIDE) for name in ("evil", "ensemble")):
        status, said = ask(record, "POST", path, body, {"closed": record.secret})
        assert (status, "explicit model load / unload is not allowed" in said) == (503, True), said

    assert sorted(path.name for path in Path(repository).iterdir()) == ["ensemble"]
    assert ask(record, "GET", "/v2/health/ready")[0] == 200


def opened(canary, act):
    """Whether the canary was read while ACT ran; its file system must tell."""
    control = canary.with_name("control")
    control.write_text("x")
    for path in (control, canary):
        os.utime(path, (0, path.stat().st_mtime))
    act()
    control.read_text()
    if control.stat().st_atime == 0:
        pytest.skip("this file system keeps no access times")
    return canary.stat().st_atime != 0


@pytest.mark.parametrize("name", TRAVERSALS)
def test_no_name_in_a_request_is_a_path(server, name):
    record, _, canary = server
    name = name.format(canary=canary)
    body = {"text_input": "x", "max_tokens": 1}
    answers = []

    def act():
        for path in (f"/v2/models/{name}", f"/v2/models/ensemble/versions/{name}"):
            answers.extend(ask(record, "GET", f"{path}{rest}") for rest in ("", "/config", "/ready", "/stats"))
            answers.extend(ask(record, "POST", f"{path}/{rest}", body) for rest in ("generate", "infer"))
        answers.append(ask(record, "GET", f"/{name}"))
        answers.append(ask(record, "GET", f"/v2/{name}"))
        parameters = {"parameters": {"file:1/model.py": CODE, "file:../../canary": CODE, "path": str(canary)}}
        answers.append(ask(record, "POST", "/v2/models/ensemble/generate", {**body, "id": name, **parameters}))

    assert not opened(canary, act)
    *refused, generated = answers
    assert {status for status, _ in refused} <= {400, 404, 403, 500}
    assert not any("sings" in said for _, said in answers)
    assert generated[0] in {200, 400}
    assert canary.read_text() == "the canary sings"
    assert ask(record, "GET", "/v2/health/ready")[0] == 200


def test_what_a_server_keeps_is_for_its_user_alone(server):
    record, _, _ = server
    folder = Path(record.endpoint.log_path).parent

    kept = [path for path in folder.iterdir() if path.suffix in {".json", ".log"}]
    assert {path.stat().st_mode & 0o077 for path in kept} == {0}
    assert len(kept) == 2
    assert record.secret not in Path(record.endpoint.log_path).read_text()
