"""NVIDIA ModelOpt as a peer: small models of the families that it exports, quantized once for all layouts."""

import copy
import warnings
from pathlib import Path

import torch

from tests.conftest import save_llama

#: ModelOpt's only group size is 128, so every input is a multiple of it, on each of two ranks too.
SHAPE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_attention_heads": 4,
    "head_dim": 64,
    "vocab_size": 320,
    "num_hidden_layers": 1,
}
#: family → (architecture, what else its config says, ModelOpt's decoder type)
FAMILIES = {
    "llama": ("LlamaForCausalLM", {}, "llama"),
    "tied llama": ("LlamaForCausalLM", {"tie_word_embeddings": True}, "llama"),
    "mistral": ("MistralForCausalLM", {}, "llama"),
    "qwen2": ("Qwen2ForCausalLM", {}, "qwen"),
    "qwen3": ("Qwen3ForCausalLM", {}, "qwen"),
    "mixtral": ("MixtralForCausalLM", {"num_local_experts": 4}, "llama"),
}
#: Our recipe → ModelOpt's configuration.
RECIPES = {
    "fp16": None,
    "fp8": "FP8_DEFAULT_CFG",
    "int4": "INT4_AWQ_CFG",
    "w4a8_awq": "W4A8_AWQ_BETA_CFG",
    "int8_sq": "INT8_SMOOTHQUANT_CFG",
    "fp8_rowwise": "FP8_PER_CHANNEL_PER_TOKEN_CFG",
    "nvfp4": "NVFP4_DEFAULT_CFG",
}


def save_family(folder: Path, family: str) -> None:
    """Write a small random model of a family."""
    architecture, changes, _ = FAMILIES[family]
    save_llama(folder, architecture=architecture, **{**SHAPE, **changes})


def quantized(folder: Path, family: str, recipe: str, *, are_experts_listed: bool = False, is_kv_cached: bool = False):
    """Return Hugging Face's model of FOLDER in float32, quantized by ModelOpt on random tokens."""
    import transformers

    model = getattr(transformers, FAMILIES[family][0]).from_pretrained(folder, dtype=torch.float32)
    if are_experts_listed and family == "mixtral":
        model = with_listed_experts(model)
    if RECIPES[recipe] is None:
        return model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # ModelOpt warns about what this machine lacks, CUDA above all
        import modelopt.torch.quantization as mtq

        config = copy.deepcopy(getattr(mtq, RECIPES[recipe]))
        if "awq" in str(config["algorithm"]):
            config["algorithm"] = {"method": "awq_lite", "alpha_step": 0.5}  # names and shapes need no finer search
        if is_kv_cached:
            config["quant_cfg"] = [*config["quant_cfg"], *mtq.FP8_KV_CFG["quant_cfg"]]
        ids = torch.randint(0, SHAPE["vocab_size"], (2, 32), generator=torch.Generator().manual_seed(0))
        return mtq.quantize(model, config, lambda it: [it(row.view(1, -1)) for row in ids])


def export_trtllm(model, family: str, target: Path, *, tp: int) -> None:
    """Write ModelOpt's TensorRT-LLM checkpoint."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        from modelopt.torch.export import export_tensorrt_llm_checkpoint

        export_tensorrt_llm_checkpoint(
            model,
            FAMILIES[family][2],
            torch.float16,
            target,
            inference_tensor_parallel=tp,
            inference_pipeline_parallel=1,
        )


def export_hf(model, target: Path) -> None:
    """Write ModelOpt's unified Hugging Face checkpoint."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        from modelopt.torch.export import export_hf_checkpoint

        export_hf_checkpoint(model, export_dir=target)


def with_listed_experts(model):
    """Return a Mixtral whose experts are modules again, as in transformers 4: ModelOpt exports no others."""
    for layer in model.model.layers:
        layer.mlp = SparseMoeBlock(layer.mlp)
    return model


class Expert(torch.nn.Module):
    """One gated MLP, under Mixtral's names."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor) -> None:
        super().__init__()
        gate, up = gate_up.chunk(2)
        self.w1, self.w2, self.w3 = (linear_of(weight) for weight in (gate, down, up))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return w2(silu(w1 x) * w3 x)."""
        return self.w2(torch.nn.functional.silu(self.w1(inputs)) * self.w3(inputs))


class SparseMoeBlock(torch.nn.Module):
    """The mixture that transformers 4 had; every token passes every expert, so that all are calibrated."""

    def __init__(self, block) -> None:
        super().__init__()
        self.gate = linear_of(block.gate.weight)
        stacked = block.experts
        self.experts = torch.nn.ModuleList(map(Expert, stacked.gate_up_proj, stacked.down_proj))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the experts' outputs, weighted by the router."""
        shares = torch.softmax(self.gate(inputs), dim=-1)
        outputs = torch.stack([expert(inputs) for expert in self.experts], dim=-1)
        return (outputs * shares.unsqueeze(-2)).sum(-1)


def linear_of(weight: torch.Tensor) -> torch.nn.Linear:
    """Return a linear without bias that holds a copy of a weight."""
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = torch.nn.Parameter(weight.detach().clone())
    return linear
