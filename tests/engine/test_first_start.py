"""A bundle starts by itself in the serving image: one engine per kind of GPU, whole or not at all."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.engine.serving_image import Image
from toolkit import engine, gpus, plan, quant, releases
from toolkit.cli.first_start import commands_by_sm
from toolkit.engine import bundle
from toolkit.specs import CalibrationSpec, ModelSource, ModelSpec

A4500 = "8.6, 20470, NVIDIA RTX A4500"
L4 = "8.9, 23034, NVIDIA L4"
H100 = "9.0, 81559, NVIDIA H100"
KEY = "sm86-trtllm1.2.1-trt10.14.1.48"
SM89_KEY = "sm89-trtllm1.2.1-trt10.14.1.48"
SMALL = ModelSpec(
    family="llama",
    architecture="LlamaForCausalLM",
    vocab_size=320,
    hidden_size=256,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    intermediate_size=512,
    activation="silu",
    norm_eps=1e-5,
    rope_theta=10000.0,
    max_position_embeddings=256,
)


def planned(gpu, recipe, *, flow="engine", **asked):
    """Plan a small model for release 26.07."""
    calibration = CalibrationSpec(source="self", samples=4, length=32)
    target = plan.Target(gpu=gpus.get(gpu), flow=flow, **releases.facts_of(releases.get("26.07")))
    checkpoint = plan.AskedCheckpoint(layout=plan.layout_of(flow), **asked)
    converted = plan.conversion(SMALL, quant.get(recipe), asked=checkpoint, calibration=calibration)
    return plan.make(converted, target, plan.Asked(), recipes=quant.catalogue())


def make_bundle(folder, *, gpu="a4500", recipe="int4", ranks=1, instances=1, flow="engine", engine_key=None):
    """Make a bundle around files that stand for a checkpoint, as a build leaves it."""
    made = planned(gpu, recipe, flow=flow)
    for path, text in {
        "checkpoint/config.json": json.dumps({"mapping": {"world_size": ranks}}),
        "checkpoint/rank0.safetensors": "weights",
        "tokenizer/tokenizer.json": "{}",
        "model_repository/tensorrt_llm/config.pbtxt": "",
    }.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    if engine_key:
        (folder / "engine" / engine_key).mkdir(parents=True)
        (folder / "engine" / engine_key / "rank0.engine").write_text("compiled by the build")
    bundle.write_entry(made, folder, commands_by_sm(made))
    document = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps({**document, "world_size": ranks, "instances": instances}))
    source = ModelSource(name="small", path=str(folder / "checkpoint"), revision="local")
    engine.seal(made, source, folder, made=engine.Made(durations_s={}, tool_versions={}))
    return folder


@pytest.fixture
def image(tmp_path):
    return Image(tmp_path / "image")


@pytest.fixture
def made(tmp_path):
    return make_bundle(tmp_path / "bundle")


def engines_in(folder):
    return sorted(path.name for path in (folder / "engine").glob("[!.]*"))


def leftovers(folder):
    return [path.name for path in folder.rglob("*.partial")]


def test_the_first_start_compiles_and_the_second_finds_the_engine(image, made):
    code, out, said = image.start(made)

    assert code == 0, said
    assert json.loads(out)["engine"] == str(made / "engine" / KEY)
    assert (made / "engine" / KEY / "rank0.engine").read_text() == "engine of 8.6"
    assert "[TRT-LLM] building" in said
    assert (made / "engine" / KEY / "build.log").read_text() == "[TRT-LLM] building\n"
    code, out, said = image.start(made)
    assert (code, said.splitlines()[0]) == (0, f"The engine {KEY} is there.")
    assert len(image.builds) == 1
    assert leftovers(made) == []


def test_it_compiles_with_the_flags_of_the_plan(image, made):
    image.start(made, "--build-only")

    (line,) = image.builds
    given = dict(zip(line[::2], line[1::2], strict=True))
    asked = json.loads((made / "manifest.json").read_text())["plan"]["build_flags"]
    assert given["--checkpoint_dir"] == str(made / "checkpoint")
    assert {f"--{flag['name']}": flag["value"] for flag in asked}.items() <= given.items()


def test_two_kinds_of_gpu_get_two_engines_side_by_side(image, made):
    for row in (A4500, L4, A4500):
        image.set_gpus(row)
        code, out, said = image.start(made)
        assert code == 0, said
        assert (Path(json.loads(out)["engine"]) / "rank0.engine").read_text() == f"engine of {row.split(',')[0]}"

    assert engines_in(made) == [KEY, SM89_KEY]
    assert len(image.builds) == 2


def test_another_tensorrt_gets_an_engine_of_its_own(image, made, tmp_path):
    image.start(made)
    Image(tmp_path / "newer", tensorrt="10.15.0.9.post1").start(made)

    assert engines_in(made) == [KEY, "sm86-trtllm1.2.1-trt10.15.0.9"]


def test_two_containers_at_once_compile_once(image, made):
    image.behave("slow")

    running = [image.popen(made) for _ in range(3)]
    ends = [(process.communicate(timeout=60), process.returncode) for process in running]

    assert [code for _, code in ends] == [0, 0, 0]
    assert len(image.builds) == 1
    assert {json.loads(out)["engine"] for (out, _), _ in ends} == {str(made / "engine" / KEY)}
    assert sum(f"Another container is compiling {KEY}; waiting for it." in said for (_, said), _ in ends) == 2


def wait_for_build(image):
    deadline = time.monotonic() + 30
    while not (image.folder / "building").is_file():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    pid = int((image.folder / "building").read_text() or 0)
    (image.folder / "building").unlink()
    return pid


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def wait_until_gone(pid):
    deadline = time.monotonic() + 10
    while is_running(pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_after_kill_9_the_next_start_compiles_again_and_leaves_nothing_half_made(image, made):
    image.behave("hang")
    process = image.popen(made)
    builder = wait_for_build(image)
    process.kill()
    process.communicate(timeout=10)
    wait_until_gone(builder)  # the compiler dies with the start

    assert engines_in(made) == []
    image.behave("succeed")
    code, _, said = image.start(made)
    assert code == 0, said
    assert (engines_in(made), leftovers(made)) == ([KEY], [])


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stop_while_it_compiles_ends_the_compiler_and_removes_what_was_half_made(image, made, how, code):
    image.behave("hang")
    process = image.popen(made)
    builder = wait_for_build(image)

    process.send_signal(how)
    _, said = process.communicate(timeout=10)

    assert process.returncode == code
    assert "Traceback" not in said
    wait_until_gone(builder)
    assert (engines_in(made), leftovers(made)) == ([], [])


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(image, made):
    image.behave("fail")

    code, out, said = image.start(made)

    assert (code, out) == (5, "")
    assert "Error: trtllm-build ended with exit code 1.\n" in said
    assert "  [TRT] [E] no implementation of the node" in said
    assert (engines_in(made), leftovers(made)) == ([], [])


def test_a_compiler_that_leaves_no_engine_is_an_error(image, made):
    image.behave("leave nothing")

    code, _, said = image.start(made)

    assert code == 5
    assert "Error: trtllm-build left no config.json." in said
    assert engines_in(made) == []


def test_what_compiling_timed_is_kept_for_the_next_time(image, made):
    image.start(made, "--build-only")
    shutil.rmtree(made / "engine" / KEY)
    image.start(made, "--build-only")

    assert (made / "engine" / f".{KEY}.timing.cache").read_text() == "timed;timed;"


@pytest.mark.parametrize(
    ("path", "is_engine_there", "is_refused"),
    [
        ("checkpoint/rank0.safetensors", False, True),
        ("checkpoint/rank0.safetensors", True, False),  # nobody reads it any more
        ("tokenizer/tokenizer.json", True, True),
        ("model_repository/tensorrt_llm/config.pbtxt", True, True),
        ("bundle.json", True, True),
        (f"engine/{KEY}/rank0.engine", True, True),
    ],
)
def test_a_file_that_is_not_what_was_built_is_refused_by_name(image, made, path, is_engine_there, is_refused):
    if is_engine_there:
        image.start(made, "--build-only")
    content = (made / path).read_bytes()
    (made / path).write_bytes(content[:-1] + b"~" if content else b"~")

    code, out, said = image.start(made)

    assert code == (5 if is_refused else 0), said
    if is_refused:
        assert f"Error: {made / path} is not what was built: it has " in said
        assert (out, leftovers(made)) == ("", [])
        assert image.start(made, "--no-verify")[0] == (5 if path == "bundle.json" else 0)


def test_a_model_that_was_put_into_the_repository_is_refused(image, made):
    (made / "model_repository/evil/1").mkdir(parents=True)
    (made / "model_repository/evil/1/model.py").write_text("")

    code, _, said = image.start(made)

    assert code == 5
    assert f"{made}/model_repository/evil/1/model.py is not what was built: it was not there." in said


def test_another_release_is_refused_with_the_image_to_take(made, tmp_path):
    code, _, said = Image(tmp_path / "other", tensorrt_llm="1.1.0").start(made)

    assert code == 4
    assert said == (
        "Error: This bundle is for TensorRT-LLM 1.2.1; this image has 1.1.0.\n"
        "Hint: Run it in nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3, or build the bundle with --release of "
        "this image.\n"
    )


def test_a_card_that_cannot_run_the_recipe_is_refused(image, tmp_path):
    made = make_bundle(tmp_path / "fp8", gpu="l4", recipe="fp8")

    code, _, said = image.start(made)

    assert code == 3
    assert "fp8 in the engine flow runs on sm_89, sm_90, sm_100, sm_103, sm_120" in said
    assert "; NVIDIA RTX A4500 is sm_86." in said


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([A4500], "This bundle needs 2 GPUs; this container sees 1."),
        (
            [A4500, L4],
            "The ranks of one engine run on one kind of GPU; here are NVIDIA RTX A4500 (sm_86), NVIDIA L4 (sm_89).",
        ),
    ],
)
def test_ranks_need_as_many_equal_gpus(image, tmp_path, rows, message):
    image.set_gpus(*rows)

    code, _, said = image.start(make_bundle(tmp_path / "two", ranks=2))

    assert (code, said.splitlines()[0]) == (4, f"Error: {message}")


def test_two_ranks_start_under_mpi_and_only_the_first_answers_clients(image, tmp_path):
    image.set_gpus(A4500, A4500)
    made = make_bundle(tmp_path / "two", ranks=2)

    code, out, said = image.start(made, "--", "--http-port=9000")

    assert code == 0, said
    program, *words = json.loads(out)["line"]
    words = [word for word in words if word != "--allow-run-as-root"]
    first, second = words[: words.index(":")], words[words.index(":") + 1 :]
    assert program == "mpirun"
    assert first[:3] == second[:3] == ["-n", "1", "tritonserver"]
    assert {"--model-control-mode=none", "--http-port=9000", "--id=rank0"} <= set(first)
    assert {"--model-control-mode=explicit", "--load-model=tensorrt_llm", "--allow-http=false"} <= set(second)
    assert "--backend-config=python,shm-region-prefix-name=prefix1_" in second


def test_two_instances_are_one_server_that_starts_their_ranks_and_keeps_off_their_gpus(image, tmp_path):
    made = make_bundle(tmp_path / "two", instances=2)

    assert image.start(made)[0] == 4
    image.set_gpus(A4500, A4500)
    code, out, said = image.start(made)

    assert code == 0, said
    document = json.loads(out)
    program, *words = document["line"]
    assert (program, document["orchestrator"]) == ("tritonserver", "1")
    assert {"--cuda-memory-pool-byte-size=0:0", "--cuda-memory-pool-byte-size=1:0"} <= set(words)
    assert "--load-model=tensorrt_llm" not in words


@pytest.mark.parametrize(
    ("gpu", "recipe", "asked", "sms"),
    [
        ("a4500", "int4", {}, [80, 86, 89, 90]),
        ("l4", "fp8", {}, [89, 90, 100, 103, 120]),
        ("l4", "int4", {"kv_cache": "fp8"}, [89, 90]),
        ("b200", "nvfp4", {}, [100, 103]),
    ],
)
def test_a_bundle_starts_on_every_gpu_that_runs_its_recipe_and_its_kv_cache(gpu, recipe, asked, sms):
    assert list(commands_by_sm(planned(gpu, recipe, **asked))) == sms


def test_for_the_llm_api_nothing_is_compiled_and_the_weights_are_checked(image, tmp_path):
    made = make_bundle(tmp_path / "llmapi", flow="llmapi")

    code, out, said = image.start(made)

    assert code == 0, said
    started = json.loads(out)
    assert (started["line"][0], started["engine"], image.builds) == ("tritonserver", None, [])
    (made / "checkpoint/rank0.safetensors").write_text("weighty")
    assert image.start(made)[0] == 5


def test_no_gpu_is_said(image, made):
    image.set_gpus()

    code, _, said = image.start(made)

    assert (code, said.splitlines()[0]) == (4, "Error: This bundle needs 1 GPU; this container sees 0.")


def test_a_check_compiles_nothing(image, made):
    code, out, said = image.start(made, "--check")

    assert (code, out) == (0, "")
    assert said == "This bundle can run here: NVIDIA RTX A4500, sm_86, TensorRT-LLM 1.2.1.\n"
    assert image.builds == []


def test_a_read_only_bundle_keeps_its_engines_elsewhere(image, made, tmp_path):
    code, out, said = image.start(made, "--engines", str(tmp_path / "kept"))

    assert code == 0, said
    assert json.loads(out)["engine"] == str(tmp_path / "kept" / KEY)
    assert not (made / "engine").exists()


@pytest.mark.parametrize("options", [(), ("--no-verify",), ("--engines", "{tmp_path}/kept")])
def test_an_engine_that_the_build_compiled_is_taken_and_another_card_gets_its_own(image, tmp_path, options):
    made = make_bundle(tmp_path / "built", engine_key=KEY)
    options = [option.format(tmp_path=tmp_path) for option in options]

    code, out, said = image.start(made, *options)
    assert (code, json.loads(out)["engine"]) == (0, str(made / "engine" / KEY)), said
    assert (made / "engine" / KEY / "rank0.engine").read_text() == "compiled by the build"
    assert image.builds == []
    image.set_gpus(L4)
    assert image.start(made, *options)[0] == 0
    kept = tmp_path / "kept" if "--engines" in options else made / "engine"
    assert sorted({*engines_in(made), *(path.name for path in kept.glob("[!.]*"))}) == [KEY, SM89_KEY]


def test_the_key_that_closes_triton_s_apis_is_new_at_every_start_and_not_in_the_log(image, made):
    keys = set()
    for _ in range(2):
        _, out, said = image.start(made)
        (closed,) = [word for word in json.loads(out)["line"] if word.startswith("--http-restricted-api=")]
        keys.add(closed.rsplit("=", 1)[1])
        assert closed.rsplit("=", 1)[1] not in said
    assert len(keys) == 2


def test_a_full_disk_is_said_and_nothing_half_made_stays(image, made, small_disk):
    disk = small_disk("4m")
    image.behave("fill the disk")
    code, _, said = image.start(made, "--engines", str(disk))
    assert code == 4
    assert "No space left on device" in said
    assert f"Error: Nothing can be written to {disk}: the disk is full." in said
    assert [path.name for path in disk.iterdir() if not path.name.endswith(".lock")] == []


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc to make a CUDA driver")
def test_the_cuda_driver_is_asked_before_nvidia_smi(image, made):
    """nvidia-smi lists GPUs that CUDA_VISIBLE_DEVICES hides from the engine."""
    source = image.folder / "cuda.c"
    source.write_text(
        """
        #include <stddef.h>
        #include <string.h>
        int cuInit(unsigned flags) { return 0; }
        int cuDeviceGetCount(int *count) { *count = 1; return 0; }
        int cuDeviceGet(int *device, int index) { *device = index; return 0; }
        int cuDeviceGetName(char *name, int size, int device) { strncpy(name, "NVIDIA H100", size); return 0; }
        int cuDeviceTotalMem_v2(size_t *size, int device) { *size = (size_t)80 << 30; return 0; }
        int cuDeviceGetAttribute(int *value, int attribute, int device) {
            if (attribute == 75) *value = 9; else if (attribute == 76) *value = 0; else return 1;
            return 0;
        }
        """
    )
    library = image.folder / "packages" / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    environment = {
        "IMAGE": str(image.folder),
        "PATH": f"{image.folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(image.folder / "packages"),
        "LD_LIBRARY_PATH": str(library.parent),
    }
    done = subprocess.run([made / "start.py", "--check"], env=environment, capture_output=True, text=True, check=True)

    assert done.stderr == "This bundle can run here: NVIDIA H100, sm_90, TensorRT-LLM 1.2.1.\n"


def test_a_rank_that_srun_started_is_one_server_of_the_engine(image, tmp_path):
    """Other nodes have the other ranks, so one GPU is enough here, and mpirun is not needed."""
    made = make_bundle(tmp_path / "bundle", ranks=4)
    image.set_gpus(A4500)

    lines = {}
    for rank in range(4):
        environment = {"SLURM_PROCID": str(rank), "SLURM_STEP_NUM_TASKS": "4"}
        code, out, said = image.start(made, "--rank", "--", "--http-port=9000", environment=environment)
        assert code == 0, said
        lines[rank] = json.loads(out)["line"]

    assert [line[0] for line in lines.values()] == ["tritonserver"] * 4
    assert {f"--id=rank{rank}" in line for rank, line in lines.items()} == {True}
    assert ["--http-port=9000" in line for line in lines.values()] == [True, False, False, False]
    assert ["--load-model=tensorrt_llm" in line for line in lines.values()] == [False, True, True, True]
    assert len(image.builds) == 1


@pytest.mark.parametrize(
    ("flow", "environment", "sentence"),
    [
        ("engine", {}, "This process has no rank: neither srun nor mpirun started it."),
        ("engine", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "3"}, "This engine has 2 ranks; 3 were started."),
        ("engine", {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, "has 2 ranks; 1 were started."),
        ("llmapi", {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, "Only the ranks of one compiled engine"),
    ],
)
def test_ranks_that_do_not_fit_the_engine_are_refused(image, tmp_path, flow, environment, sentence):
    made = make_bundle(tmp_path / "bundle", ranks=2, flow=flow)

    code, _, said = image.start(made, "--rank", environment=environment)

    assert code == 4
    assert sentence in said
    assert image.builds == []
