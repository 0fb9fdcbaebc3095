"""Bytes, counted: parameters, weights in a recipe's format, KV cache per token, what an engine needs besides."""

from __future__ import annotations

from toolkit.plan import kv_cache, tensors
from toolkit.plan.storage import TRTLLM
from toolkit.plan.tensors import FLOAT_BYTES, Stored
from toolkit.specs import Limits, ModelSpec, QuantRecipe, Sharding, parts

GIB = 1 << 30
MIB = 1 << 20
#: TensorRT-LLM's activations are about this many times tokens x hidden x 2 bytes: what aiconfigurator measured for the
#: Llama family and for mixtures with one rank, and the shares of it with more.
#: https://github.com/ai-dynamo/aiconfigurator/blob/095f58a/src/aiconfigurator/sdk/backends/trtllm_backend.py
ACTIVATION_FACTOR, MOE_ACTIVATION_FACTOR = 11, 22
SHARE_BY_RANKS = {1: 1.0, 2: 0.59, 4: 0.46}
SHARE_AT_LEAST = 0.46
#: FP8 GEMMs of TensorRT take more than that: 1134 MiB in the log of the page below, where 704 were expected.
#: https://nvidia.github.io/TensorRT-LLM/reference/memory.html
FLOAT8_GEMMS = {"FP8"}
FLOAT8_FACTOR = 1.55
MIN_ACTIVATION_BYTES = 70 * MIB
#: Solved from two boot logs, of that page and of https://github.com/NVIDIA/TensorRT-LLM/issues/1188, which have their
#: batch sizes from the builder's defaults: 180.3 and 5.76 GiB for the decoder, 43.3 MiB and 2.66 GiB for the runtime.
DECODER_COPIES = 5
LOGIT_BYTES = 4
POSITION_BYTES = 24
#: CUDA context and libraries of a serving process: 0.26 GiB in issue 1188, 0.76 GiB in the log of that page.
RUNTIME_BYTES = 600 * MIB
#: The CPU engine's process besides weights and KV cache, read from one that served the demo model; beside it Triton and
#: the Python processes in front of and behind the engine.
CPU_ENGINE_BYTES = 520 * MIB
CPU_RUNTIME_BYTES = CPU_ENGINE_BYTES + 280 * MIB
#: Buffers of NCCL on each of several ranks, as aiconfigurator has them.
NCCL_BYTES = 342 * MIB


def linear_parameters(model: ModelSpec) -> int:
    """Return the weights of all decoder layers' linears, every expert's too: what a recipe quantizes."""
    return parts.parameters(model)


def router_parameters(model: ModelSpec) -> int:
    """Return the weights of the routers of a mixture of experts, which stay in 32 bits."""
    if model.moe is None:
        return 0
    return (model.num_layers - len(model.moe.dense_layers)) * model.moe.num_experts * model.hidden_size


def float_parameters(model: ModelSpec) -> int:
    """Return what stays in 16 bits: embedding, head, norms, biases and gates of shared experts."""
    layers = sum(_small_parameters(model, layer) for layer in range(model.num_layers))
    return 2 * model.vocab_size * model.hidden_size + model.hidden_size + layers


def _small_parameters(model: ModelSpec, layer: int) -> int:
    """Return a layer's norms, biases and the gate of its shared expert."""
    norms = (4 if model.has_sandwich_norms else 2) * model.hidden_size
    if model.is_recurrent(layer):
        norms += tensors.recurrent_parameters(model)
    elif model.has_qk_norm:
        norms += 2 * model.head_dim
    biased = {
        "attention": (("q", "k", "v") if model.has_qkv_bias else ()) + (("dense",) if model.has_output_bias else ()),
        "mlp": parts.MLP if model.has_mlp_bias else (),
    }
    shapes = parts.shapes(model, layer)
    biases = sum(shapes[f"{prefix}.{name}"][0] for prefix, names in biased.items() for name in names)
    norms += tensors.latent_norms(model)
    if not model.is_moe_layer(layer):
        return norms + biases
    return norms + biases + tensors.router_biases(model) + (model.hidden_size if model.has_shared_gate else 0)


def total_parameters(model: ModelSpec) -> int:
    """Return all parameters, as model cards count them: a tied head once."""
    tied = model.vocab_size * model.hidden_size if model.is_tied else 0
    return linear_parameters(model) + router_parameters(model) + float_parameters(model) - tied


def weights_bytes(
    model: ModelSpec,
    recipe: QuantRecipe,
    group_size: int | None,
    *,
    sharding: Sharding | None = None,
    is_head_shared: bool = False,
) -> int:
    """Return the bytes of the weights that the fullest rank loads, scales included.

    Layers are divided among the stages, and linears, experts, embedding and head among the ranks of one; norms are not.
    IS_HEAD_SHARED: the runtime keeps a tied head once. TensorRT engines were seen to keep both (issue 1188 of
    TensorRT-LLM: 875 MiB for a model whose one table takes 260).
    """
    ranks = sharding or Sharding()
    form = tensors.LOADED[recipe.quant_algo]
    kinds = [(model.is_moe_layer(layer), model.is_recurrent(layer)) for layer in range(model.num_layers)]
    each = {kind: _layer_bytes(model, form, group_size, ranks, kind=kind) for kind in set(kinds)}
    stages = tensors.stages_of(model.num_layers, ranks.pp)
    is_once = ranks.pp > 1 or (model.is_tied and is_head_shared)
    tables = (1 if is_once else 2) * tensors.table_bytes(model, ranks.tp)
    layers = max(sum(each[kinds[layer]] for layer in stage) for stage in stages)
    return layers + tables + FLOAT_BYTES * model.hidden_size


def _layer_bytes(
    model: ModelSpec, form: Stored, group_size: int | None, ranks: Sharding, *, kind: tuple[bool, bool]
) -> int:
    is_moe, is_recurrent = kind
    modules = tensors.modules(model, ranks, is_moe=is_moe, layout=TRTLLM, is_recurrent=is_recurrent)
    linears = sum(tensors.module_bytes(module, form, group_size=group_size, layout=TRTLLM) for module in modules)
    return linears + tensors.small_bytes(model, is_moe=is_moe, is_recurrent=is_recurrent)


def kv_bytes_per_token(model: ModelSpec, *, kv_bytes: int = FLOAT_BYTES, sharding: Sharding | None = None) -> int:
    """Return the KV cache of one token on the fullest rank: keys and values of its layers and heads."""
    return kv_cache.bytes_per_token(kv_cache.of_model(model, kv_bytes=kv_bytes, sharding=sharding))


def activation_bytes(model: ModelSpec, limits: Limits, recipe: QuantRecipe | None = None) -> int:
    """Return the activation buffer of an engine built for LIMITS: linear in max_num_tokens and in max_batch_size.

    Layers reuse one buffer, which tensor ranks share out; the logits of a batch come on top.
    """
    factor = float(ACTIVATION_FACTOR) if model.moe is None else MOE_ACTIVATION_FACTOR
    factor *= SHARE_BY_RANKS.get(limits.tp, SHARE_AT_LEAST)
    if recipe and recipe.quant_algo in FLOAT8_GEMMS:
        factor *= FLOAT8_FACTOR
    tokens = limits.max_num_tokens * model.hidden_size * FLOAT_BYTES
    logits = limits.max_batch_size * model.vocab_size * FLOAT_BYTES
    return max(MIN_ACTIVATION_BYTES, int(factor * tokens) + logits)


def decoder_bytes(model: ModelSpec, limits: Limits) -> int:
    """Return the sampler's buffers: some copies of the batch's logits."""
    return DECODER_COPIES * LOGIT_BYTES * limits.max_batch_size * model.vocab_size


def buffers_bytes(model: ModelSpec, limits: Limits) -> int:
    """Return the runtime's buffers: the batch's logits, and tables of every request's positions."""
    logits = LOGIT_BYTES * limits.max_batch_size * model.vocab_size
    return logits + POSITION_BYTES * limits.max_batch_size * limits.max_seq_len


def runtime_bytes(model: ModelSpec, limits: Limits) -> int:
    """Return what a serving process takes besides weights, activations and KV cache."""
    nccl = NCCL_BYTES if limits.tp * limits.pp > 1 else 0
    return RUNTIME_BYTES + nccl + decoder_bytes(model, limits) + buffers_bytes(model, limits)
