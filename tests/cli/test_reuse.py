"""The same build gives the same bytes, is not made twice, and is refused when it is no longer what was built."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.conftest import save_llama
from toolkit.cli import main
from toolkit.files import sha256_file


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny Llama whose head size TensorRT-LLM's attention has."""
    folder = tmp_path_factory.mktemp("tiny") / "hf"
    save_llama(folder, hidden_size=256, num_attention_heads=4, num_key_value_heads=2, vocab_size=4096)
    return folder


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """A build cache of its own."""
    monkeypatch.setenv("TRTK_BUILD_CACHE", str(tmp_path / "builds"))
    return tmp_path / "builds"


def run(*line, code=0):
    result = CliRunner().invoke(main, [*map(str, line), "--json"])
    assert result.exit_code == code, result.stderr
    return json.loads(result.stdout) if code == 0 else result.stderr


def build(model, folder, *options, gpu="a4500", quant="int4_rtn"):
    return run("build", model, "--gpu", gpu, "--quant", quant, "-o", folder, *options)


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def copy_of(model, folder, *, flipped=None):
    shutil.copytree(model, folder)
    if flipped is not None:
        with (folder / "model.safetensors").open("rb+") as stream:
            stream.seek(flipped, 2)
            byte = stream.read(1)[0]
            stream.seek(flipped, 2)
            stream.write(bytes([byte ^ 1]))
    return folder


def test_a_bundle_that_is_built_twice_has_the_same_bytes(model, tmp_path):
    first, second = (build(model, tmp_path / name) for name in ("a", "b"))

    packed = [run("bundle", tmp_path / name, "-o", tmp_path / f"{name}.tar.zst") for name in ("a", "b")]

    assert first["build_id"] == second["build_id"]
    assert (tmp_path / "a.tar.zst").read_bytes() == (tmp_path / "b.tar.zst").read_bytes()
    assert {**packed[0], "bundle": ""} == {**packed[1], "bundle": ""}
    there, here = files(tmp_path / "a"), files(tmp_path / "b")
    assert {name for name in there if there[name] != here[name]} <= {"manifest.json"}


def test_a_packed_bundle_is_unpacked_to_what_was_built(model, tmp_path):
    build(model, tmp_path / "a")
    packed = run("bundle", tmp_path / "a", "-o", tmp_path / "a.tar.zst")
    (tmp_path / "there").mkdir()
    if shutil.which("zstd") is None:
        pytest.skip("needs zstd to unpack")
    subprocess.run(["tar", "--zstd", "-xf", tmp_path / "a.tar.zst", "-C", tmp_path / "there"], check=True)

    unpacked = tmp_path / "there" / packed["folder"]
    original, found = files(tmp_path / "a"), files(unpacked)
    assert {**original, "manifest.json": b""} == {**found, "manifest.json": b""}
    assert (unpacked / "start.py").stat().st_mode & 0o111
    assert run("bundle", unpacked, "-o", tmp_path / "again.tar.zst")["sha256"] == packed["sha256"]


def test_one_byte_of_a_shard_changes_the_build_and_its_bundle(model, tmp_path):
    build(model, tmp_path / "a")
    other = build(copy_of(model, tmp_path / "hf", flipped=-100), tmp_path / "b")

    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    packed = [run("bundle", tmp_path / name, "-o", tmp_path / f"{name}.tar.zst") for name in ("a", "b")]
    assert other["build_id"] != manifest["build_id"]
    assert packed[0]["content_id"] != packed[1]["content_id"]


def test_an_edited_tokenizer_of_the_source_is_built_anew_in_the_same_folder(model, tmp_path):
    source = copy_of(model, tmp_path / "hf")
    first = build(source, tmp_path / "a")
    settings = json.loads((source / "tokenizer_config.json").read_text())
    (source / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": "{{ messages }}"}))

    again, third = (build(source, tmp_path / "a") for _ in range(2))

    assert (again["is_reused"], third["is_reused"]) == (False, True)
    assert len({one["build_id"] for one in (first, again, third)}) == 2
    assert "messages" in (tmp_path / "a/tokenizer/tokenizer_config.json").read_text()


def test_what_was_compiled_since_stays_out_of_the_bundle(model, tmp_path):
    build(model, tmp_path / "a")
    clean = run("bundle", tmp_path / "a", "-o", tmp_path / "clean.tar.zst")
    (tmp_path / "a/engine/sm86").mkdir(parents=True)
    (tmp_path / "a/engine/sm86/rank0.engine").write_text("compiled at first start")

    assert run("bundle", tmp_path / "a", "-o", tmp_path / "later.tar.zst")["sha256"] == clean["sha256"]


def test_what_cannot_be_packed_is_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd/manifest.json").write_text("{}")

    assert run("bundle", tmp_path / "empty", code=2).startswith(f"Error: {tmp_path}/empty holds no manifest.json.\n")
    assert run("bundle", tmp_path / "nowhere", code=2).startswith(
        f"Error: {tmp_path}/nowhere holds no manifest.json.\n"
    )
    said = run("bundle", tmp_path / "odd", code=2)
    assert said.startswith(f"Error: {tmp_path}/odd/manifest.json is not a manifest of this version of trtk: ")
    said = run("bundle", tmp_path / "odd", "-o", "x.zip", code=2)
    assert said == "Error: x.zip is no .tar.zst file.\nHint: -o x.zip.tar.zst\n"
    (tmp_path / "a.tar.zst").mkdir()
    said = run("bundle", tmp_path / "odd", "-o", tmp_path / "a.tar.zst", code=2)
    assert said.startswith(f"Error: {tmp_path}/a.tar.zst is a folder, not a file.\n")
    (tmp_path / "a.tar.zst").rmdir()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "odd"]


def test_a_full_disk_leaves_no_half_of_a_bundle(model, tmp_path, small_disk):
    build(model, tmp_path / "a")
    disk = small_disk("1m")
    said = run("bundle", tmp_path / "a", "-o", disk / "a.tar.zst", code=4)
    assert said.startswith("Check the files")
    assert "Error: The bundle a.tar.zst needs " in said
    assert list(disk.iterdir()) == []


def test_a_damaged_folder_is_not_packed(model, tmp_path):
    build(model, tmp_path / "a")
    path = tmp_path / "a/checkpoint/rank0.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"~")

    said = run("bundle", tmp_path / "a", "-o", tmp_path / "a.tar.zst", code=5)

    assert f"Error: {path} is not what was built: it has the sha256 " in said
    assert not (tmp_path / "a.tar.zst").exists()


@pytest.mark.usefixtures("cached")
def test_a_second_build_of_the_same_takes_the_checkpoint(model, tmp_path):
    first, second = build(model, tmp_path / "a"), build(model, tmp_path / "b")

    assert (first["reused"], second["reused"]) == ([], ["checkpoint"])
    assert first["build_id"] == second["build_id"]
    there, here = files(tmp_path / "a"), files(tmp_path / "b")
    assert {**there, "manifest.json": b""} == {**here, "manifest.json": b""}


def test_other_limits_and_another_card_take_the_same_checkpoint(model, cached, tmp_path):
    builds = [
        build(model, tmp_path / "a"),
        build(model, tmp_path / "b", "--max-batch-size", "2"),
        build(model, tmp_path / "c", gpu="l4"),
        build(model, tmp_path / "d", "--release", "26.04"),
        build(model, tmp_path / "e", quant="fp16"),
        build(copy_of(model, tmp_path / "hf", flipped=-100), tmp_path / "f"),
    ]

    assert [one["reused"] for one in builds] == [[], ["checkpoint"], ["checkpoint"], ["checkpoint"], [], []]
    assert len({one["build_id"] for one in builds}) == 5  # 26.04 and 26.07 have the same builder
    assert len(list((cached / "checkpoints").glob("[!.]*"))) == 3


@pytest.mark.engine
@pytest.mark.usefixtures("cached")
def test_for_the_cpu_the_compiled_engine_is_taken_too(model, tmp_path):
    builds = [build(model, tmp_path / name, gpu="cpu") for name in ("a", "b")]

    assert [one["reused"] for one in builds] == [[], ["checkpoint", "engine"]]
    there, here = files(tmp_path / "a/engine"), files(tmp_path / "b/engine")
    assert there == here
    versions = [json.loads((tmp_path / name / "manifest.json").read_text())["tool_versions"] for name in ("a", "b")]
    assert versions[0] == versions[1]


@pytest.mark.usefixtures("cached")
def test_an_edited_folder_is_not_handed_on(model, tmp_path):
    build(model, tmp_path / "a")
    whole = files(tmp_path / "a/checkpoint")
    path = tmp_path / "a/checkpoint/rank0.safetensors"
    path.chmod(0o644)
    with path.open("rb+") as stream:
        stream.seek(-1, 2)
        stream.write(b"~")

    build(model, tmp_path / "b")

    assert files(tmp_path / "b/checkpoint") == whole


@pytest.mark.usefixtures("cached")
def test_two_builds_at_once_make_the_checkpoint_once(model, tmp_path):
    program = "from toolkit.cli import main; main()"
    line = [sys.executable, "-c", program, "build", str(model), "--gpu", "a4500", "--quant", "int4_rtn", "--json"]
    running = [
        subprocess.Popen(
            [*line, "-o", str(tmp_path / name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    ends = [process.communicate(timeout=120) for process in running]

    assert [process.returncode for process in running] == [0, 0], ends
    assert sorted(json.loads(out)["reused"] for out, _ in ends) == [[], ["checkpoint"]]
    (taken,) = [said for out, said in ends if json.loads(out)["reused"]]
    assert "The checkpoint is taken from the cache (" in taken
    assert {**files(tmp_path / "a"), "manifest.json": b""} == {**files(tmp_path / "b"), "manifest.json": b""}


@pytest.mark.usefixtures("cached")
def test_a_build_that_was_killed_is_done_by_the_next_one_and_nothing_half_made_is_taken(model, tmp_path):
    program = "from toolkit.cli import main; main()"
    line = [sys.executable, "-c", program, "build", str(model), "--gpu", "a4500", "--quant", "int4_rtn"]
    process = subprocess.Popen([*line, "-o", str(tmp_path / "a")], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (tmp_path / "a.partial/checkpoint.partial").exists() and not (tmp_path / "a.partial/checkpoint").exists():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait(10)

    again = build(model, tmp_path / "a")
    fresh = build(model, tmp_path / "b")

    assert again["build_id"] == fresh["build_id"]
    assert {**files(tmp_path / "a"), "manifest.json": b""} == {**files(tmp_path / "b"), "manifest.json": b""}


@pytest.mark.parametrize(
    "path", ["engine/openvino_model.bin", "tokenizer/tokenizer.json", "model_repository/ensemble/config.pbtxt"]
)
@pytest.mark.engine
def test_a_wrong_hash_is_refused_at_serve_time(cpu_build, tmp_path, path):
    folder = tmp_path / "served"
    shutil.copytree(cpu_build, folder)
    document = json.loads((folder / "manifest.json").read_text())
    for record in document["files"]:
        if record["path"] == path:
            record["sha256"] = record["sha256"][::-1]
    (folder / "manifest.json").write_text(json.dumps(document))

    said = run("serve", folder, "--dry-run", code=5)

    assert f"Error: {folder / path} is not what was built: it has the sha256 " in said
    assert "`trtk serve --no-verify` takes it as it is." in said
    assert "tritonserver" in run("serve", folder, "--dry-run", "--no-verify")["command"][0]


@pytest.mark.engine
def test_a_file_that_was_put_into_the_repository_is_refused_at_serve_time(cpu_build, tmp_path):
    folder = tmp_path / "served"
    shutil.copytree(cpu_build, folder)
    assert run("serve", folder, "--dry-run")["command"]
    added = folder / "model_repository/added/1/model.py"
    added.parent.mkdir(parents=True)
    added.write_text("")

    assert f"Error: {added} is not what was built: it was not there." in run("serve", folder, "--dry-run", code=5)


@pytest.fixture(scope="module")
def cpu_build(model, tmp_path_factory):
    """A build for the CPU, to be copied."""
    folder = tmp_path_factory.mktemp("cpu") / "tiny"
    build(model, folder, gpu="cpu")
    return Path(folder)


@pytest.mark.parametrize(
    ("gpu", "older", "taken"),
    [
        ("a4500", ["start.py", "model_repository/preprocessing/1/model.py"], ["checkpoint"]),
        ("cpu", ["model_repository/ensemble/config.pbtxt"], ["checkpoint", "engine"]),
    ],
)
def test_what_an_older_trtk_wrote_to_serve_a_build_is_written_again_and_nothing_else_is_made(
    model, tmp_path, gpu, older, taken
):
    folder = tmp_path / "a"
    build(model, folder, gpu=gpu, quant="int8")
    now = files(folder)
    manifest = json.loads(now["manifest.json"])
    for record in manifest["files"]:
        if record["path"] in older:
            path = folder / record["path"]
            path.write_text("# as it was\n")
            record["sha256"], record["size_bytes"] = sha256_file(path), path.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))

    again, third = (build(model, folder, gpu=gpu, quant="int8") for _ in range(2))

    assert (again["is_reused"], again["reused"], third["is_reused"]) == (False, taken, True)
    assert {name for name, content in files(folder).items() if content != now[name]} == {"manifest.json"}
    assert files(folder).keys() == now.keys()
    assert [record["sha256"] for record in json.loads((folder / "manifest.json").read_text())["files"]] == [
        record["sha256"] for record in json.loads(now["manifest.json"])["files"]
    ]
