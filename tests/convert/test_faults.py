"""Bad weights are named, and leave nothing half-written; an interrupted conversion goes on where it stopped."""

import json
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import save_llama
from tests.convert.checkpoints import convert_model
from toolkit import models
from toolkit.errors import BuildError, MissingError, PlanInfeasible, UsageError
from toolkit.specs import ModelSource


@pytest.fixture
def copied(llama, tmp_path):
    """A copy of the tiny model that a test may damage."""
    shutil.copytree(llama[0], tmp_path / "hf")
    return tmp_path / "hf"


def refused(folder, target, recipe="int4_rtn"):
    """Convert, expect a refusal, and check that nothing stands under the target's name."""
    with pytest.raises(BuildError) as caught:
        convert_model(folder, target, recipe)
    assert not target.exists()
    return str(caught.value)


def test_a_truncated_shard_is_named_with_both_sizes(copied, tmp_path):
    path = copied / "model.safetensors"
    whole = path.stat().st_size
    with path.open("r+b") as stream:
        stream.truncate(whole - 1000)

    message = refused(copied, tmp_path / "out")

    assert message == f"{path} is truncated: its header promises {whole} bytes, the file has {whole - 1000}."


@pytest.mark.parametrize("content", [b"", b"\x10", struct.pack("<Q", 1 << 60) + b"{}", struct.pack("<Q", 4) + b"nope"])
def test_what_is_no_safetensors_file_is_named(copied, tmp_path, content):
    (copied / "model.safetensors").write_bytes(content)

    assert str(copied / "model.safetensors") in refused(copied, tmp_path / "out")


def damage(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_missing_tensor_is_named(copied, tmp_path):
    damage(copied, lambda tensors: tensors.pop("model.layers.1.mlp.down_proj.weight"))

    assert refused(copied, tmp_path / "out") == f"{copied} has no tensor model.layers.1.mlp.down_proj.weight."


@pytest.mark.parametrize(("value", "word"), [(float("nan"), "NaN"), (float("inf"), "Inf"), (-float("inf"), "Inf")])
def test_a_value_that_is_no_number_is_named(copied, tmp_path, value, word):
    name = "model.layers.0.self_attn.k_proj.weight"
    damage(copied, lambda tensors: tensors[name].view(-1)[17].fill_(value))

    assert refused(copied, tmp_path / "out") == f"{name} in {copied / 'model.safetensors'} holds a {word}."


def test_a_tensor_of_another_shape_is_named(copied, tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    damage(copied, lambda tensors: tensors.update({name: tensors[name][:-2].clone()}))

    assert refused(copied, tmp_path / "out") == (
        "Layer 0's mlp.up_proj has shape (254, 128), but config.json says (256, 128)."
    )


def test_a_shard_that_the_index_names_but_is_not_there_is_named(copied, tmp_path):
    index = {"weight_map": {"model.norm.weight": "model-00002-of-00002.safetensors"}}
    (copied / "model.safetensors.index.json").write_text(json.dumps(index))

    assert "lacks the shard model-00002-of-00002.safetensors" in refused(copied, tmp_path / "out")


def test_an_unknown_architecture_is_refused_with_what_is_known(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps({**config, "architectures": ["FlyingForCausalLM"]}))

    with pytest.raises(PlanInfeasible, match=r"does not convert FlyingForCausalLM yet; it converts .*LlamaForCausalLM"):
        models.read(models.locate(str(copied)))


def test_pickled_weights_are_refused(copied):
    (copied / "model.safetensors").unlink()
    torch.save({}, copied / "pytorch_model.bin")

    with pytest.raises(PlanInfeasible, match=r"only as pickle \(pytorch_model.bin\), which can run code"):
        models.locate(str(copied))


@pytest.mark.parametrize("name", ["/no/such/folder", "./nothing", "nothing"])
def test_a_wrong_path_says_what_a_model_is(name):
    with pytest.raises(UsageError, match="There is no folder"):
        models.locate(name)


def test_an_unknown_rope_type_is_named(tmp_path):
    save_llama(tmp_path / "hf")
    config = json.loads((tmp_path / "hf/config.json").read_text())
    config["rope_parameters"] = {"rope_type": "spiral", "rope_theta": 10000.0}
    (tmp_path / "hf/config.json").write_text(json.dumps(config))

    with pytest.raises(PlanInfeasible, match="does not know rope_type 'spiral'"):
        convert_model(tmp_path / "hf", tmp_path / "out", "int4")


FILL = """
import sys
from pathlib import Path
from toolkit import errors
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
from tests.convert.checkpoints import convert_model
try:
    convert_model(Path(sys.argv[1]), Path(sys.argv[2]), "fp16")
except errors.MissingError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_disk_that_takes_no_more_is_named_and_the_next_run_finishes(llama, tmp_path):
    """A file size limit fails the write in the kernel as a full disk does, with EFBIG for ENOSPC."""
    target = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", FILL, str(llama[0]), str(target), "300000"], check=False, capture_output=True, text=True
    )

    assert (done.returncode, done.stderr) == (4, "")
    assert "rank0.safetensors would be larger than this file system or process allows." in done.stdout
    assert not target.exists()
    convert_model(llama[0], target, "fp16")
    convert_model(llama[0], tmp_path / "whole", "fp16")
    assert (target / "rank0.safetensors").read_bytes() == (tmp_path / "whole/rank0.safetensors").read_bytes()


def test_too_little_free_space_is_said_before_any_work(llama, tmp_path):
    from toolkit import convert, plan, quant

    source = ModelSource(name="tiny", path=str(llama[0]), revision="local")
    made = plan.conversion(models.read(source), quant.get("fp16"))

    with pytest.raises(MissingError, match=r"The fp16 checkpoint needs 1000000000.00 GB, but"):
        convert.run(made, source, tmp_path / "out", weights_bytes=10**18)

    assert not (tmp_path / "out").exists()


SLOW = """
import sys, time
from pathlib import Path
from toolkit.convert import conversion
write = conversion.Conversion._quantized
def slowly(self, layer, assignment, statistics):
    if layer.index == 1:
        print("layer 1", flush=True)
        time.sleep(60)
    return write(self, layer, assignment, statistics)
conversion.Conversion._quantized = slowly
from tests.convert.checkpoints import convert_model
convert_model(Path(sys.argv[1]), Path(sys.argv[2]), "int4")
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_conversion_goes_on_at_its_layer_with_the_same_bytes(llama, tmp_path, how):
    target = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(llama[0]), str(target)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline() == b"layer 1\n"
    process.send_signal(how)
    process.wait(10)
    process.stdout.close()
    assert not target.exists()
    journal = (target.with_name("out.partial") / "rank0.journal").read_text().splitlines()
    assert [json.loads(line)["step"] for line in journal] == ["embedding", "layer 0"]

    started = time.monotonic()
    convert_model(llama[0], target, "int4")
    assert time.monotonic() - started < 30
    convert_model(llama[0], tmp_path / "whole", "int4")

    assert (target / "rank0.safetensors").read_bytes() == (tmp_path / "whole/rank0.safetensors").read_bytes()
    assert not target.with_name("out.partial").exists()


def test_a_finished_checkpoint_is_reused_and_another_plan_replaces_it(llama, tmp_path):
    convert_model(llama[0], tmp_path / "out", "int4_rtn")
    before = (tmp_path / "out/rank0.safetensors").stat().st_mtime_ns
    convert_model(llama[0], tmp_path / "out", "int4_rtn")
    assert (tmp_path / "out/rank0.safetensors").stat().st_mtime_ns == before

    convert_model(llama[0], tmp_path / "out", "fp16")

    assert json.loads((tmp_path / "out/config.json").read_text())["quantization"]["quant_algo"] is None
