"""What a model takes on its device: from its plan, before it was ever loaded."""

from __future__ import annotations

from toolkit.pool.config import Size
from toolkit.specs import BuildPlan

MIB = 1 << 20
#: OpenVINO's CPU plugin computes 16-bit weights in 32 bits and keeps a copy that is laid out for its kernels; integers
#: stay as they are, in the mapped file and in such a copy. Fitted to SmolLM2-135M as int4, int8 and fp16: 536, 617 and
#: 1,241 MiB at work without the cache, of 54, 54 and 257 MiB in 16 bits and 57, 102 and 0 MiB of integers.
CPU_FLOAT_FACTOR, CPU_INTEGER_FACTOR = 4.0, 1.8
#: Python, OpenVINO and its buffers, measured in the same fit; and the processes for text on both sides of it.
CPU_RUNTIME_BYTES = 230 * MIB
TEXT_PROCESSES_BYTES = 3 * 64 * MIB
FLOAT_BITS, FLOAT_BYTES = 16, 2


def kv_tokens_of(plan: BuildPlan) -> int:
    """Return the tokens that the cache of a plan holds."""
    return max(1, plan.kv_bytes // max(1, plan.kv_bytes_per_token))


def size_of(plan: BuildPlan, *, kv_tokens: int, activation_bytes: int, runtime_bytes: int) -> Size:
    """Return what a model takes; the last two are those of a GPU, and not used for a CPU."""
    kv_bytes = kv_tokens * plan.kv_bytes_per_token
    if plan.flow != "openvino":
        return Size(
            weights_bytes=plan.weights_bytes,
            kv_bytes=kv_bytes,
            activation_bytes=activation_bytes,
            runtime_bytes=runtime_bytes,
        )
    model, stored = plan.conversion.model, plan.weights_bytes
    tables = (1 if model.is_tied else 2) * model.vocab_size * model.hidden_size * FLOAT_BYTES
    floats = stored if plan.conversion.recipe.weight_bits >= FLOAT_BITS else min(tables, stored)
    return Size(
        weights_bytes=round(CPU_FLOAT_FACTOR * floats + CPU_INTEGER_FACTOR * (stored - floats)),
        kv_bytes=kv_bytes,
        activation_bytes=activation_bytes,
        runtime_bytes=CPU_RUNTIME_BYTES + TEXT_PROCESSES_BYTES,
    )
