"""What an engine is built for: batch, sequence and token limits that the memory can hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit import rope
from toolkit.errors import PlanInfeasible
from toolkit.plan import memory
from toolkit.plan.engine_options import AskedEngine
from toolkit.specs import Choice, GpuSpec, Limits, ModelSpec, Sharding

#: Defaults where the user says nothing: long enough for chat with documents, short enough for small cards.
DEFAULT_SEQ_LEN = 8192
DEFAULT_NUM_TOKENS = 8192
#: Prefill pieces of the CPU engine: larger ones starve running streams.
CPU_NUM_TOKENS = 1024
CPU_BATCH_SIZE = 64
MAX_BATCH_SIZE = 256
#: Average share of max_seq_len that a request is taken to use when the batch size is chosen.
TYPICAL_FILL = 0.25
#: The KV pool of the CPU engine.
CPU_KV_BYTES = memory.GIB
#: TensorRT-LLM's default share of free memory for the KV cache.
KV_FRACTION = 0.9


class NoRoom(PlanInfeasible):
    """The weights do not fit into a rank's GPU."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Limits, ranks and options of an engine that the user set; None leaves them to the plan."""

    max_batch_size: int | None = None
    max_seq_len: int | None = None
    max_num_tokens: int | None = None
    sharding: Sharding = field(default_factory=Sharding)
    engine: AskedEngine = field(default_factory=AskedEngine)


def choose(
    gpu: GpuSpec, model: ModelSpec, asked: Asked, *, weights_bytes: int, kv_bytes_per_token: int
) -> tuple[Limits, int, tuple[Choice, ...]]:
    """Return limits, bytes of the KV pool and reasons; raises PlanInfeasible when not even one request fits."""
    seq_len, seq_reason = _seq_len(gpu, model, asked)
    tokens = asked.max_num_tokens or (CPU_NUM_TOKENS if gpu.is_cpu else min(DEFAULT_NUM_TOKENS, seq_len))
    draft = Limits(max_batch_size=1, max_seq_len=seq_len, max_num_tokens=tokens)
    per_token = kv_bytes_per_token
    kv_bytes = CPU_KV_BYTES if gpu.is_cpu else _gpu_kv_bytes(gpu, model, draft, weights_bytes)
    if kv_bytes < per_token * seq_len:
        raise PlanInfeasible(
            f"The KV cache of one request of {seq_len} tokens takes {per_token * seq_len / memory.GIB:.2f} GiB, "
            f"but {kv_bytes / memory.GIB:.2f} GiB are left for it on {gpu.title}.",
            hint=f"Try --max-seq-len {max(256, kv_bytes // per_token // 256 * 256)}.",
        )
    batch, batch_reason = _batch_size(gpu, asked, kv_bytes, per_token * seq_len)
    choices: tuple[Choice, ...] = (
        Choice(name="max_seq_len", value=str(seq_len), reason=seq_reason),
        Choice(name="max_num_tokens", value=str(tokens), reason=_tokens_reason(gpu, asked)),
        Choice(name="max_batch_size", value=str(batch), reason=batch_reason),
    )
    ranks = {"tp": asked.sharding.tp, "pp": asked.sharding.pp, "ep": asked.sharding.ep}
    choices += tuple(
        Choice(name=name, value=str(count), reason="ranks as asked, one GPU each")
        for name, count in ranks.items()
        if count > 1
    )
    return Limits(max_batch_size=batch, max_seq_len=seq_len, max_num_tokens=tokens, **ranks), kv_bytes, choices


def _seq_len(gpu: GpuSpec, model: ModelSpec, asked: Asked) -> tuple[int, str]:
    longest, of_what = model.max_position_embeddings, f"the model's {model.max_position_embeddings} positions"
    fixed = rope.fixed_until(model)
    if gpu.is_cpu and fixed is not None and fixed < longest:
        # The CPU engine keeps the keys of earlier tokens as they were turned.
        longest, of_what = fixed, f"the {fixed} tokens after which the model's rope turns all of them otherwise"
    if asked.max_seq_len:
        if asked.max_seq_len > longest:
            raise PlanInfeasible(
                f"--max-seq-len {asked.max_seq_len} is beyond {of_what}.", hint=f"Try --max-seq-len {longest}."
            )
        return asked.max_seq_len, "as asked"
    if longest <= DEFAULT_SEQ_LEN:
        return longest, f"all of {of_what}"
    return DEFAULT_SEQ_LEN, f"a part of {of_what}; more costs KV cache"


def _gpu_kv_bytes(gpu: GpuSpec, model: ModelSpec, draft: Limits, weights_bytes: int) -> int:
    usable = gpu.memory_usable_mib * memory.MIB
    needed = weights_bytes + memory.activation_bytes(model, draft) + memory.RUNTIME_BYTES
    if needed >= usable:
        raise NoRoom(
            f"The weights take {weights_bytes / memory.GIB:.2f} GiB and the engine {needed / memory.GIB:.2f} GiB in "
            f"all; {gpu.title} has {usable / memory.GIB:.2f} GiB.",
            hint="Try a larger card: `trtk gpus`.",
        )
    return int(KV_FRACTION * (usable - needed))


def _batch_size(gpu: GpuSpec, asked: Asked, kv_bytes: int, bytes_per_request: int) -> tuple[int, str]:
    if asked.max_batch_size:
        return asked.max_batch_size, "as asked"
    if gpu.is_cpu:
        return CPU_BATCH_SIZE, "beyond it more requests in flight only wait for the cores"
    fitting = int(kv_bytes / (bytes_per_request * TYPICAL_FILL))
    batch = max(1, min(MAX_BATCH_SIZE, fitting))
    return batch, f"requests of a quarter of max_seq_len that {kv_bytes / memory.GIB:.1f} GiB of KV cache hold"


def _tokens_reason(gpu: GpuSpec, asked: Asked) -> str:
    if asked.max_num_tokens:
        return "as asked"
    return "prefill in pieces, so that running streams go on" if gpu.is_cpu else "activation memory grows with it"
