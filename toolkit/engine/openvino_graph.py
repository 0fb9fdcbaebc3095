"""A decoder as an OpenVINO graph that ContinuousBatchingPipeline can run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from toolkit import rope
from toolkit.engine.checkpoint_spec import spec_of
from toolkit.engine.openvino_attention import Attention
from toolkit.engine.openvino_mixture import dense, mixture
from toolkit.engine.openvino_nodes import capped, integers, parameter
from toolkit.engine.openvino_norm import normed
from toolkit.engine.openvino_weights import Weights
from toolkit.errors import PlanInfeasible

if TYPE_CHECKING:
    from toolkit.engine.checkpoint_reader import CheckpointReader
    from toolkit.specs import ModelSpec

EMBEDDING = "transformer.vocab_embedding.weight"


def decoder_model(checkpoint: CheckpointReader, *, max_seq_len: int = 0) -> tuple[Any, Weights]:
    """Return the stateful openvino.Model of a checkpoint, and the weights that must outlive its saving.

    MAX_SEQ_LEN is the longest text that it will see: some rope types depend on it.
    """
    import openvino
    from openvino import opset13 as ops

    spec = spec_of(checkpoint.config)
    need_servable(spec, max_seq_len)
    weights = Weights(checkpoint)
    inputs = {name: parameter(name, 2) for name in ("input_ids", "attention_mask", "position_ids")}
    inputs["beam_idx"] = parameter("beam_idx", 1, kind="i32")
    attention = Attention(spec, weights, inputs, max_seq_len=max_seq_len)
    hidden = ops.gather(weights.table(EMBEDDING), inputs["input_ids"], integers(0, []))
    if spec.embedding_scale != 1:
        hidden = ops.multiply(hidden, weights.scalar(spec.embedding_scale, like=EMBEDDING))
    for index in range(spec.num_layers):
        hidden = _layer(spec, attention, hidden, index)
    hidden = normed(hidden, weights, "transformer.ln_f", eps=spec.norm_eps)
    result = ops.result(capped(_head(weights, hidden), spec.logit_softcap))
    result.get_output_tensor(0).set_names({"logits"})
    checkpoint.need_all_read()
    return openvino.Model([result], attention.sinks, list(inputs.values()), "decoder"), weights


def need_servable(spec: ModelSpec, max_seq_len: int) -> None:
    """Raise PlanInfeasible for what paged attention cannot compute."""
    if spec.attention_softcap is not None:
        raise PlanInfeasible(
            f"The CPU engine cannot serve {spec.architecture} with attn_logit_softcapping {spec.attention_softcap}: "
            "OpenVINO's paged attention has no softcap on attention scores.",
            hint="Gemma 3 has none; an NVIDIA GPU serves Gemma 2.",
        )
    fixed = rope.fixed_until(spec)
    if fixed is not None and max_seq_len > fixed:
        raise PlanInfeasible(
            f"Beyond {fixed} tokens this model's rope turns every token of a text otherwise, but the CPU engine keeps "
            f"the keys of earlier tokens; it was asked for texts of {max_seq_len}.",
            hint=f"Try --max-seq-len {fixed}.",
        )


def _layer(spec: ModelSpec, attention: Attention, hidden: Any, index: int) -> Any:
    from openvino import opset13 as ops

    prefix, weights = f"transformer.layers.{index}.", attention.weights

    def norm(values: Any, name: str) -> Any:
        return normed(values, weights, f"{prefix}{name}", eps=spec.norm_eps)

    def mlp(values: Any) -> Any:
        if spec.moe:
            return mixture(spec, weights, values, prefix)
        return dense(spec, weights, values, f"{prefix}mlp.")

    attended = attention(norm(hidden, "input_layernorm"), index)
    if not spec.has_sandwich_norms:
        hidden = ops.add(hidden, attended)
        return ops.add(hidden, mlp(norm(hidden, "post_layernorm")))
    hidden = ops.add(hidden, norm(attended, "post_layernorm"))
    inner = mlp(norm(hidden, "pre_feedforward_layernorm"))
    return ops.add(hidden, norm(inner, "post_feedforward_layernorm"))


def _head(weights: Weights, hidden: Any) -> Any:
    """Return logits by lm_head, or by the embedding where the file has no lm_head."""
    from openvino import opset13 as ops

    if "lm_head.weight" in weights.checkpoint:
        return weights.linear(hidden, "lm_head")
    return ops.matmul(hidden, weights.table(EMBEDDING), transpose_a=False, transpose_b=True)
