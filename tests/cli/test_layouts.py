"""`trtk quantize` makes ranks, unified checkpoints and exclusions, and refuses by the option's name."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from toolkit import gpus
from toolkit.cli import main, planning
from toolkit.errors import PlanInfeasible

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def quantize(llama, tmp_path):
    """Run `trtk quantize` on the tiny model with little calibration."""

    def ran(*options):
        fixed = ["quantize", llama[0], "-o", tmp_path / "out", "--calib-samples", 1, "--calib-length", 16]
        return CliRunner().invoke(main, [str(argument) for argument in [*fixed, *options]])

    return ran


def test_ranks_are_files_and_the_result_says_what_was_decided(quantize, tmp_path):
    done = quantize("--quant", "fp8", "--tp", 2, "--pp", 2, "--exclude", "*.mlp.proj", "--json")

    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    files = sorted(path.name for path in (tmp_path / "out").glob("*.safetensors"))
    assert files == [f"rank{rank}.safetensors" for rank in range(4)]
    assert result["bytes"] == sum((tmp_path / "out" / name).stat().st_size for name in files)
    said = {key: result[key] for key in ("format", "tp", "pp", "ep", "kv_cache", "exclude")}
    assert said == {"format": "trtllm", "tp": 2, "pp": 2, "ep": 1, "kv_cache": "fp8", "exclude": ["*.mlp.proj"]}
    assert "KV cache fp8: what runs 8-bit floats caches them too; twice the tokens fit" in done.stderr


def test_a_unified_checkpoint_is_a_model_folder(quantize, tmp_path):
    done = quantize("--quant", "int8_sq", "--format", "hf", "--kv-cache", "none")

    assert done.exit_code == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "config.json",
        "hf_quant_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert "no loader of W8A8_SQ_PER_CHANNEL in this layout is known" in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--tp", 3], 3, "--tp 3 does not divide the model's 4 attention heads."),
        (["--ep", 2, "--tp", 2], 3, "--ep 2 divides experts, and LlamaForCausalLM has none."),
        (["--format", "hf", "--tp", 2], 3, "--tp, --pp and --ep cannot be meant with --format hf."),
        (["--exclude", "layers.9"], 2, "--exclude 'layers.9' matches no module."),
    ],
)
def test_what_cannot_be_is_refused_with_a_hint(quantize, tmp_path, options, code, message):
    done = quantize("--quant", "fp16", *options)

    assert done.exit_code == code
    assert message in " ".join(done.stderr.split())
    assert "Hint:" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_kv_cache_that_the_flow_cannot_store_is_refused_by_name():
    made = SimpleNamespace(conversion=SimpleNamespace(kv_cache="int8"), flow="llmapi", gpu=gpus.get("h100-sxm"))

    with pytest.raises(PlanInfeasible, match=r"A KV cache in INT8 runs on no GPU in the llmapi flow; .* is sm_90\."):
        planning.need_kv_cache(made)
