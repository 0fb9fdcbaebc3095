"""The wheel carries all that the checkout has, works without the checkout, and is light."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from toolkit import __version__, repository
from toolkit.specs import RepositorySpec

ROOT = Path(__file__).parents[1]
#: What a light install does not have: in the programs below these are not found, as if they were not there.
HEAVY = ("torch", "numpy", "transformers", "openvino", "openvino_genai", "tritonclient", "safetensors", "matplotlib")
LIGHT = f"""
import sys
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *rest):
        return None if name.split(".")[0] in {HEAVY!r} else self.finder.find_spec(name, *rest)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
"""
RUN = "import sys; from toolkit.cli import main; main(sys.argv[1:], prog_name='trtk')"
SPEC = {
    "layout": "inflight_batcher",
    "engine_backend": "tensorrtllm",
    "tokenizer_dir": "/t",
    "engine_dir": "/e",
    "max_batch_size": 4,
    "max_seq_len": 256,
    "max_num_tokens": 512,
}
RENDER = f"""
import json, sys
from toolkit import repository
from toolkit.specs import RepositorySpec
json.dump(repository.render(RepositorySpec(**{SPEC!r})), sys.stdout)
"""
TINY_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 320,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from this checkout without a network."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("trtk-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder with the wheel's content, as pip puts it into site-packages."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    subprocess.run([*command, str(wheel)], check=True, capture_output=True)
    return folder


@pytest.fixture
def python(installed, tmp_path):
    """Run a program outside the checkout, where `toolkit` is the wheel's and heavy packages cannot be imported."""

    def ran(program, *arguments):
        proof = f"import toolkit; assert toolkit.__file__.startswith({str(installed)!r}), toolkit.__file__\n"
        environment = {**os.environ, "PYTHONPATH": str(installed), "COLUMNS": "80"}
        command = [sys.executable, "-W", "error", "-c", LIGHT + proof + program, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60
        )

    return ran


def save_config(folder):
    """Write what a plan reads of a model: no weights are needed for it."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(TINY_LLAMA))
    (folder / "model.safetensors").write_bytes(b"")


def files_below(folder):
    paths = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    return {str(path) for path in paths if "__pycache__" not in path.parts}


def test_the_wheel_holds_exactly_the_package_its_data_and_the_templates(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info"

    expected = {f"toolkit/{name}" for name in files_below(ROOT / "toolkit")}
    expected |= {f"toolkit/_templates/{name}" for name in files_below(ROOT / "templates")}
    assert names == expected | {
        f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")
    }
    assert {"toolkit/gpus/a4500.toml", "toolkit/releases/26.07.toml", "toolkit/quant/support.toml"} <= names


def test_the_command_and_the_module_run(installed, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    for start in ([str(installed / "bin" / "trtk")], [sys.executable, "-m", "toolkit.cli"]):
        done = subprocess.run(
            [*start, "--version"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        assert done.stdout == f"trtk, version {__version__}\n"


@pytest.mark.parametrize("command", ["gpus", "releases"])
def test_the_catalogue_is_in_the_wheel_and_needs_nothing_heavy(python, command):
    done = python(RUN, command, "--json")

    assert (done.returncode, done.stderr) == (0, "")
    names = {entry["name"] for entry in json.loads(done.stdout)[command]}
    assert names == {path.stem for path in (ROOT / "toolkit" / command).glob("*.toml")}


def test_the_quantizations_are_in_the_wheel_and_need_nothing_heavy(python):
    done = python(RUN, "quants", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    names = {entry["name"] for entry in json.loads(done.stdout)["quants"]}
    assert names >= {path.stem for path in (ROOT / "toolkit/quant/algorithms").glob("*.py")} - {"__init__"}


@pytest.mark.parametrize("arguments", [["--help"], ["gpus"], ["quants"], ["releases"], ["models"], ["bench", "--help"]])
def test_a_light_install_runs_what_needs_no_weights(python, arguments):
    done = python(RUN, *arguments)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("gpu", ["cpu", "a4500"])
def test_a_light_install_plans_a_build(python, tmp_path, gpu):
    save_config(tmp_path / "tiny")

    done = python(RUN, "build", "./tiny", "--gpu", gpu, "--quant", "int4", "--dry-run", "--json")

    assert (done.returncode, done.stderr) == (0, "")
    planned = json.loads(done.stdout)
    assert planned["folder"] == f"engines/tiny-{gpu}-int4"
    assert planned["plan"]["gpu"]["name"] == gpu


def test_a_light_install_says_what_to_install_before_it_works(python, tmp_path):
    save_config(tmp_path / "tiny")

    done = python(RUN, "build", "./tiny", "--gpu", "a4500", "--quant", "int4")

    assert done.returncode == 4
    assert done.stderr.splitlines()[-2:] == [
        "Error: This needs torch, safetensors, which is not installed.",
        "Hint: pip install 'trtk[cpu]'",
    ]


def test_the_wheel_renders_the_repository_that_the_checkout_renders(python):
    done = python(RENDER)

    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == repository.render(RepositorySpec(**SPEC))
