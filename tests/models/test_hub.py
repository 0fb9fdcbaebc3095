"""A hub id becomes a local folder pinned to a commit, or one sentence; the hub is a stand-in on loopback.

The hub's client reads HF_ENDPOINT when it is imported, so every fetch runs in a process of its own.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.models.hub_stand_in import Hub, Repository, start

COMMIT = "0123456789abcdef0123456789abcdef01234567"
NEEDED = {
    "config.json": b'{"architectures": ["LlamaForCausalLM"]}',
    "generation_config.json": b'{"eos_token_id": 2}',
    "hf_quant_config.json": b'{"quantization": {}}',
    "tokenizer.json": b'{"version": "1.0"}',
    "tokenizer_config.json": b'{"model_max_length": 256}',
    "chat_template.jinja": b"{{ messages }}",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "model-00001-of-00001.safetensors": bytes(range(256)) * 4000,
}
NOT_NEEDED = {
    "README.md": b"# A model",
    "pytorch_model.bin": b"pickled",
    "consolidated.safetensors": b"the same weights again",
    "original/consolidated.00.pth": b"pickled",
    "original/model.safetensors": b"the same weights again",
    "onnx/config.json": b"{}",
}
PROGRAM = """
import json, sys
from toolkit.errors import TrtkError
from toolkit.models import hub
steps = []
try:
    source = hub.fetch(sys.argv[1], lambda *step: steps.append(step))
    said = {"name": source.name, "path": source.path, "revision": source.revision, "steps": steps}
except TrtkError as error:
    said = {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
print(json.dumps(said))
"""


@pytest.fixture
def hub():
    """A running stand-in with one good model."""
    made = Hub({"org/model": Repository(COMMIT, {**NEEDED, **NOT_NEEDED})})
    server = start(made)
    yield made
    server.shutdown()
    server.server_close()


def environment_of(hub, home, **variables):
    """Return an environment whose only hub is the stand-in."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))},
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **variables,
    }


@pytest.fixture
def fetch(hub, tmp_path):
    """Fetch a model in a process that knows only the stand-in; return what it said."""

    def fetched(name, **variables):
        environment = environment_of(hub, tmp_path / "hf", **variables)
        command = [sys.executable, "-c", PROGRAM, name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
        return json.loads(done.stdout)

    return fetched


def files_of(said):
    folder = Path(said["path"])
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["org/model", "org/model@main", f"org/model@{COMMIT}"])
def test_a_branch_becomes_a_commit_and_only_what_is_needed_is_fetched(hub, fetch, name):
    said = fetch(name)

    assert (said["name"], said["revision"]) == (name, COMMIT)
    assert files_of(said) == NEEDED
    assert hub.fetched() == set(NEEDED)


def test_progress_counts_the_bytes_that_are_written(fetch):
    size = sum(len(content) for content in NEEDED.values())

    steps = fetch("org/model")["steps"]

    assert {(name, total) for name, _, total in steps} == {("Fetch from the hub", size)}
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)
    assert steps[-1][1] == size


def test_a_second_fetch_asks_for_no_file_again(hub, fetch):
    first = fetch("org/model")
    hub.log.clear()

    again = fetch("org/model")

    assert (again["path"], again["revision"]) == (first["path"], COMMIT)
    assert hub.fetched() == set()


@pytest.mark.parametrize("name", ["org/model", "org/model@main", f"org/model@{COMMIT}"])
def test_offline_a_warm_cache_serves_and_the_commit_is_recorded(hub, fetch, name):
    online = fetch(name)
    hub.log.clear()

    offline = fetch(name, HF_HUB_OFFLINE="1")

    assert (offline["path"], offline["revision"]) == (online["path"], COMMIT)
    assert hub.log == []


def test_offline_with_a_cold_cache_is_one_sentence(fetch):
    assert fetch("org/model@main", HF_HUB_OFFLINE="1") == {
        "error": "org/model@main is not whole in the local cache, and the hub cannot be asked.",
        "hint": "Check the network and HF_HUB_OFFLINE, or give a local Hugging Face folder.",
        "exit_code": 4,
    }


def test_a_cut_connection_goes_on_where_it_broke(hub, fetch):
    # Large, because the hub's client writes pieces of ten megabytes and goes on after the last whole one.
    shard, content = "model-00001-of-00001.safetensors", bytes(range(256)) * 100_000
    hub.repositories["org/model"].files[shard] = content
    hub.repositories["org/model"].cut = shard

    said = fetch("org/model")

    assert files_of(said) == {**NEEDED, shard: content}
    first, second = [asked.byte_range for asked in hub.log if asked.method == "GET" and asked.path.endswith(shard)]
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= len(content) // 2


def test_a_killed_download_keeps_whole_files_and_goes_on_within_the_broken_one(hub, fetch, tmp_path):
    # The hub's client writes pieces of ten megabytes: half of this file is two of them and something that is lost.
    whole, broken = "model-00001-of-00001.safetensors", "model-00002-of-00002.safetensors"
    content = bytes(range(256)) * 200_000
    repository = hub.repositories["org/model"]
    repository.files[broken] = content
    repository.stall = broken
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "org/model"],
        env=environment_of(hub, tmp_path / "hf"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(lambda: [path for path in (tmp_path / "hf").rglob("*.part") if path.stat().st_size == 20 << 20])
    process.kill()
    process.wait(30)
    repository.go_on.set()
    hub.log.clear()

    said = fetch("org/model")

    assert files_of(said) == {**NEEDED, broken: content}
    asked = [asked for asked in hub.log if asked.method == "GET" and asked.path.endswith(broken)]
    assert [one.byte_range for one in asked] == [f"bytes={20 << 20}-"]
    assert said["steps"][-1][1] == said["steps"][-1][2]
    assert [path.name for path in (tmp_path / "hf").rglob("*.part")] == []
    assert whole in files_of(said)


def test_a_part_that_is_wrong_is_found_by_its_hash_and_fetched_again(hub, fetch, tmp_path):
    shard, content = "model-00001-of-00001.safetensors", bytes(range(256)) * 50_000
    hub.repositories["org/model"].files[shard] = content
    part = tmp_path / "hf/hub/models--org--model/blobs" / f"{hashlib.sha256(content).hexdigest()}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(1 << 20))

    first, second = fetch("org/model"), fetch("org/model")

    assert first["error"].startswith(f"{shard} of org/model is damaged: ")
    assert files_of(second) == {**NEEDED, shard: content}


def test_two_downloads_at_once_fetch_a_large_file_once(hub, tmp_path):
    shard, content = "model-00001-of-00001.safetensors", bytes(range(256)) * 50_000
    repository = hub.repositories["org/model"]
    repository.files[shard], repository.stall = content, shard
    environment = environment_of(hub, tmp_path / "hf")
    command = [sys.executable, "-c", PROGRAM, "org/model"]
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    wait_for(lambda: not repository.stall)
    time.sleep(0.5)
    repository.go_on.set()
    said = [json.loads(process.communicate(timeout=60)[0]) for process in running]

    assert [files_of(one) for one in said] == [{**NEEDED, shard: content}] * 2
    asked = [asked for asked in hub.log if asked.method == "GET" and asked.path.endswith(shard)]
    assert len(asked) <= 2  # once, and once more for the half that was cut off


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_damaged_shard_is_refused_taken_out_of_the_cache_and_fetched_again(hub, fetch):
    shard = "model-00001-of-00001.safetensors"
    sha256 = hashlib.sha256(NEEDED[shard]).hexdigest()
    hub.repositories["org/model"].damage = shard

    assert fetch("org/model") == {
        "error": f"{shard} of org/model is damaged: its sha256 is not {sha256[:16]}…, which the hub names.",
        "hint": "It is taken out of the cache: the same command fetches it again.",
        "exit_code": 5,
    }
    hub.repositories["org/model"].damage = ""
    assert files_of(fetch("org/model")) == NEEDED


def test_a_shard_that_was_damaged_in_the_cache_is_refused_offline_too(fetch):
    folder = Path(fetch("org/model")["path"])
    content = (folder / "model-00001-of-00001.safetensors").resolve()
    with content.open("rb+") as stream:
        stream.write(b"\xff")

    said = fetch("org/model", HF_HUB_OFFLINE="1")

    assert (said["exit_code"], "is damaged: its sha256 is not " in said["error"]) == (5, True)
    assert not content.exists()


def test_a_gated_model_names_the_page_to_visit(hub, fetch):
    hub.repositories["org/model"].is_gated = True

    assert fetch("org/model") == {
        "error": "org/model is gated: its owner must let you in.",
        "hint": f"Accept the terms at {hub.url}/org/model, then set HF_TOKEN.",
        "exit_code": 4,
    }
    assert "model-00001-of-00001.safetensors" not in hub.fetched()


def test_an_unknown_model_is_named(fetch):
    assert fetch("org/modle") == {
        "error": "The hub has no model org/modle, or it is private.",
        "hint": "Check the name; for a private one set HF_TOKEN.",
        "exit_code": 2,
    }


def test_an_unknown_revision_is_named(fetch):
    assert fetch("org/model@v9") == {
        "error": "org/model has no revision 'v9'.",
        "hint": "Give a branch, tag or commit after @, or nothing.",
        "exit_code": 2,
    }


def test_what_cannot_be_a_hub_id_is_a_usage_error(hub, fetch):
    said = fetch("org/..model")

    assert said["error"].startswith("'org/..model' is no hub id: ")
    assert said["exit_code"] == 2
    assert hub.log == []


@pytest.mark.parametrize("weights", ["pytorch_model.bin", "consolidated.00.pth"])
def test_a_model_with_only_pickled_weights_is_refused_before_a_byte_is_fetched(hub, fetch, weights):
    # Safetensors in a folder of their own are another layout, and do not count.
    hub.repositories["org/model"].files = {"config.json": b"{}", weights: b"pickled", "onnx/x.safetensors": b"other"}

    assert fetch("org/model") == {
        "error": f"org/model has its weights only as pickle ({weights}), which can run code when it is read; "
        "trtk reads safetensors only.",
        "hint": "Use a revision with *.safetensors, or convert it in a sandbox with `save_pretrained`.",
        "exit_code": 3,
    }
    assert hub.fetched() == set()


def test_a_hub_that_fails_is_one_sentence(hub, fetch):
    hub.is_down = True

    said = fetch("org/model")

    assert said["error"].startswith(f"The hub at {hub.url} did not answer for org/model: ")
    assert "500" in said["error"]
    assert "HF_HUB_OFFLINE=1" in said["hint"]
    assert said["exit_code"] == 4


def test_no_hub_at_all_is_one_sentence(fetch):
    said = fetch("org/model", HF_ENDPOINT="http://127.0.0.1:9")

    assert said["error"] == (
        "The hub at http://127.0.0.1:9 did not answer for org/model: [Errno 111] Connection refused"
    )
    assert said["exit_code"] == 4
