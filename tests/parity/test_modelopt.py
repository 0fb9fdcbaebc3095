"""NVIDIA ModelOpt exports the same names, types and shapes, and where bytes are defined, the same bytes."""

import warnings

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import save_llama
from tests.convert.checkpoints import convert_model

pytestmark = pytest.mark.slow
#: Our recipe → ModelOpt's configuration.
CONFIGS = {"fp16": None, "fp8": "FP8_DEFAULT_CFG", "int4": "INT4_AWQ_CFG"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Llama whose inputs 128 divides, ModelOpt's only group size."""
    made = tmp_path_factory.mktemp("hf")
    save_llama(made, hidden_size=256, intermediate_size=512, num_attention_heads=4, head_dim=64)
    return made


def modelopt_export(folder, target, config):
    """Quantize with ModelOpt on random tokens and export its TensorRT-LLM checkpoint."""
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ModelOpt warns about what this machine lacks, CUDA above all
        import modelopt.torch.quantization as mtq
        from modelopt.torch.export import export_tensorrt_llm_checkpoint

        if config:
            ids = torch.randint(0, 320, (4, 64), generator=torch.Generator().manual_seed(0))
            model = mtq.quantize(model, getattr(mtq, config), lambda it: [it(row.view(1, -1)) for row in ids])
        with torch.inference_mode():
            export_tensorrt_llm_checkpoint(
                model, "llama", torch.float16, target, inference_tensor_parallel=1, inference_pipeline_parallel=1
            )
    return load_file(target / "rank0.safetensors")


@pytest.mark.parametrize("recipe", CONFIGS)
def test_names_types_and_shapes_equal_modelopts(folder, tmp_path, recipe):
    theirs = modelopt_export(folder, tmp_path / "theirs", CONFIGS[recipe])
    convert_model(folder, tmp_path / "ours", recipe)
    ours = load_file(tmp_path / "ours/rank0.safetensors")

    described = [{name: (t.dtype, tuple(t.shape)) for name, t in tensors.items()} for tensors in (ours, theirs)]
    assert described[0] == described[1]
    for name, tensor in theirs.items():
        if recipe == "fp16" or name.endswith("norm.weight") or (recipe == "fp8" and "activation" not in name):
            assert torch.equal(ours[name].view(torch.uint8), tensor.view(torch.uint8)), name
