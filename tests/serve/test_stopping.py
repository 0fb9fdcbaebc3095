"""What stopping may remove, and what it must leave."""

import datetime
import os

from toolkit.serve import stopping
from toolkit.specs import Endpoint, ServeSpec

STARTED = datetime.datetime(2026, 8, 1, 12, tzinfo=datetime.timezone.utc)
ENDPOINT = Endpoint(
    name="x",
    http_url="",
    grpc_url="",
    metrics_url="",
    pid=1,
    log_path="",
    started_at=STARTED.isoformat(),
    spec=ServeSpec(name="x", repository="/r", backend="embedded", startup_timeout_s=60),
)


def folder(parent, name, *, after_s):
    made = parent / name
    made.mkdir()
    os.utime(made, (STARTED.timestamp() + after_s,) * 2)
    return made


def test_only_an_empty_folder_made_while_the_server_started_is_removed(tmp_path):
    folder(tmp_path, "python_env_OURS01", after_s=1)
    folder(tmp_path, "python_env_before", after_s=-5)
    folder(tmp_path, "python_env_later1", after_s=61)
    folder(tmp_path, "something_else", after_s=1)
    full = folder(tmp_path, "python_env_full01", after_s=1)
    (full / "env").touch()
    os.utime(full, (STARTED.timestamp() + 1,) * 2)

    stopping.remove_stub_folders(ENDPOINT, others_started=[], temporary=tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "python_env_before",
        "python_env_full01",
        "python_env_later1",
        "something_else",
    ]


def test_a_folder_that_another_living_server_may_have_made_is_left(tmp_path):
    folder(tmp_path, "python_env_theirs", after_s=2)
    folder(tmp_path, "python_env_OURS01", after_s=1)

    stopping.remove_stub_folders(ENDPOINT, others_started=[STARTED.timestamp() + 1.5], temporary=tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["python_env_theirs"]
