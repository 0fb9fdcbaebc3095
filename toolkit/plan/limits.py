"""What an engine is built for: batch, sequence and token limits that the memory can hold, with a KV cache."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from toolkit import rope
from toolkit.errors import PlanInfeasible
from toolkit.plan import kv_cache, memory, support
from toolkit.plan.engine_options import AskedEngine
from toolkit.plan.kv_cache import CachedLayers
from toolkit.specs import (
    Choice,
    ConversionPlan,
    GpuSpec,
    Limits,
    ModelSpec,
    QuantRecipe,
    Sharding,
    Speculation,
    Workload,
)
from toolkit.specs.planning import KvPool, MemoryBudget, Sizing

#: Defaults where the user says nothing: long enough for chat with documents, short enough for small cards.
DEFAULT_SEQ_LEN = 8192
DEFAULT_NUM_TOKENS = 8192
#: Tokens of one step below which prompts are computed in pieces too small for a GPU.
LEAST_NUM_TOKENS = 2048
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
TOKENS_PER_BLOCK = 32
POLICY = "guaranteed_no_evict"
#: Answers this many times longer than the mean are reserved for nothing most of the time.
WIDE_ANSWERS = 2.0


class TooSmall(PlanInfeasible):
    """A card is too small; `miss` says how many times over."""

    def __init__(self, message: str, *, hint: str | None = None, miss: float = 1.0) -> None:
        super().__init__(message, hint=hint)
        self.miss = miss


class NoRoom(TooSmall):
    """The weights do not fit into a rank's GPU."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """Limits, ranks and options of an engine that the user set; None leaves them to the plan."""

    max_batch_size: int | None = None
    max_seq_len: int | None = None
    max_num_tokens: int | None = None
    sharding: Sharding = field(default_factory=Sharding)
    engine: AskedEngine = field(default_factory=AskedEngine)
    workload: Workload | None = None
    weights_bytes: int | None = None  # of one rank, read off headers; None: counted from the shapes
    speculation: Speculation | None = None
    headroom: float | None = None  # the share of the card that may be used at all; None: KV_FRACTION of what is left


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """What lies on a card before the first request: the fullest rank's weights, and how it caches."""

    gpu: GpuSpec
    model: ModelSpec
    recipe: QuantRecipe
    weights_bytes: int
    cached: tuple[CachedLayers, ...]

    @property
    def usable_bytes(self) -> int:
        """What a process can allocate; 0 for a host that nobody has asked."""
        return self.gpu.memory_usable_mib * memory.MIB


def loaded_on(gpu: GpuSpec, converted: ConversionPlan, flow: str, sharding: Sharding) -> Loaded:
    """Return what the fullest rank of an engine holds before its first request."""
    model = converted.model
    weights = memory.weights_bytes(
        model, converted.recipe, converted.group_size, sharding=sharding, is_head_shared=flow != support.ENGINE
    )
    width = kv_cache.BYTES_BY_TYPE[converted.kv_cache]
    cached = kv_cache.of_model(model, kv_bytes=width, sharding=sharding)
    if gpu.is_cpu:
        cached = kv_cache.of_cpu_engine(model)
    return Loaded(gpu=gpu, model=model, recipe=converted.recipe, weights_bytes=weights, cached=cached)


def choose(loaded: Loaded, asked: Asked) -> Sizing:
    """Return limits, the KV pool and the reasons; raises PlanInfeasible when not even one request fits."""
    gpu = loaded.gpu
    seq_len, seq_reason = _seq_len(gpu, loaded.model, asked)
    tokens, tokens_reason = _num_tokens(gpu, asked, seq_len)
    ranks = {"tp": asked.sharding.tp, "pp": asked.sharding.pp, "ep": asked.sharding.ep}
    alone = Limits(max_batch_size=1, max_seq_len=seq_len, max_num_tokens=tokens, **ranks)
    _need_one_request(loaded, asked, alone)
    batch, batch_reason = _batch_size(loaded, asked, alone)
    limits = Limits(max_batch_size=batch, max_seq_len=seq_len, max_num_tokens=tokens, **ranks)
    _need_room_beside_batch(loaded, asked, alone, limits)
    kv_bytes = pool_bytes(loaded, asked, limits)
    policy, policy_reason = _policy(asked)
    decided = [
        ("max_seq_len", seq_len, seq_reason),
        ("max_num_tokens", tokens, tokens_reason),
        ("max_batch_size", batch, batch_reason),
        *((name, count, "ranks as asked, one GPU each") for name, count in ranks.items() if count > 1),
        *_kv_choices(loaded, asked, limits, kv_bytes),
        ("batch_scheduler_policy", policy, policy_reason),
    ]
    return _sizing(
        loaded,
        asked,
        limits,
        kv_bytes=kv_bytes,
        policy=policy,
        choices=tuple(Choice(name=name, value=str(value), reason=reason) for name, value, reason in decided),
    )


def pool_bytes(loaded: Loaded, asked: Asked, limits: Limits) -> int:
    """Return what is left for the KV cache beside an engine with LIMITS; not above zero where it does not fit."""
    if loaded.gpu.is_cpu:
        return _cpu_pool_bytes(loaded, asked)
    left = loaded.usable_bytes - needed_bytes(loaded, limits)
    if asked.headroom is None:
        return int(KV_FRACTION * left)
    spared = int((1 - asked.headroom) * loaded.usable_bytes)
    return min(left - spared, int(KV_FRACTION * left))


def needed_bytes(loaded: Loaded, limits: Limits) -> int:
    """Return what a process takes besides its KV cache."""
    if loaded.gpu.is_cpu:
        return loaded.weights_bytes + memory.CPU_RUNTIME_BYTES
    activations = memory.activation_bytes(loaded.model, limits, loaded.recipe)
    return loaded.weights_bytes + activations + memory.runtime_bytes(loaded.model, limits)


def request_tokens(asked: Asked, seq_len: int) -> int:
    """Return the tokens of the request that is counted: its answer as long as it may be, where that is reserved."""
    load = asked.workload
    if load is None:
        return seq_len
    reserved = load.osl_max if _policy(asked)[0] == POLICY else round(load.osl)
    return min(seq_len, round(load.isl) + reserved)


def _cpu_pool_bytes(loaded: Loaded, asked: Asked) -> int:
    load = asked.workload
    if load is None:
        return CPU_KV_BYTES
    each = kv_cache.bytes_of_request(loaded.cached, round(load.isl) + load.osl_max, tokens_per_block=TOKENS_PER_BLOCK)
    wanted = max(CPU_KV_BYTES, (load.concurrency or 1) * each)
    if not loaded.usable_bytes:
        return wanted
    left = loaded.usable_bytes - loaded.weights_bytes - memory.CPU_RUNTIME_BYTES
    return min(wanted, int((asked.headroom or KV_FRACTION) * left))


def _need_one_request(loaded: Loaded, asked: Asked, alone: Limits) -> None:
    needed, usable, gpu = needed_bytes(loaded, alone), loaded.usable_bytes, loaded.gpu
    if needed >= usable and (usable or not gpu.is_cpu):
        raise NoRoom(
            f"The weights take {loaded.weights_bytes / memory.GIB:.2f} GiB and the engine {needed / memory.GIB:.2f} GiB"
            f" in all; {gpu.title} has {usable / memory.GIB:.2f} GiB.",
            hint="Try a larger card: `trtk gpus`.",
            miss=needed / max(1, usable),
        )
    pool = pool_bytes(loaded, asked, alone)
    tokens = _longest_tokens(asked, alone)
    one = kv_cache.bytes_of_request(loaded.cached, tokens)
    if pool < one:
        longest = kv_cache.longest_request(loaded.cached, max(0, pool), at_most=tokens, tokens_per_block=1)
        raise TooSmall(
            f"The KV cache of one request of {tokens} tokens takes {one / memory.GIB:.2f} GiB, "
            f"but {max(0, pool) / memory.GIB:.2f} GiB are left for it on {gpu.title}.",
            hint=f"Try --max-seq-len {longest // 256 * 256}." if longest >= 256 else "Try a larger card: `trtk gpus`.",
            miss=(usable - pool + one) / max(1, usable),
        )


def _longest_tokens(asked: Asked, alone: Limits) -> int:
    """Return the tokens of the longest request that has to fit."""
    return asked.workload.isl_max + asked.workload.osl_max if asked.workload else alone.max_seq_len


def _need_room_beside_batch(loaded: Loaded, asked: Asked, alone: Limits, limits: Limits) -> None:
    """Refuse a batch that was asked for where its own buffers leave no room for one request."""
    tokens, pool = _longest_tokens(asked, alone), pool_bytes(loaded, asked, limits)
    one = kv_cache.bytes_of_request(loaded.cached, tokens)
    if pool >= one:
        return
    most = _largest_batch(loaded, asked, alone, each=one, most=limits.max_batch_size)
    raise PlanInfeasible(
        f"The buffers of --max-batch-size {limits.max_batch_size} leave {max(0, pool) / memory.GIB:.2f} GiB of "
        f"{loaded.gpu.title} for the KV cache; one request of {tokens} tokens takes {one / memory.GIB:.2f} GiB.",
        hint=f"Try --max-batch-size {most}.",
    )


def _seq_len(gpu: GpuSpec, model: ModelSpec, asked: Asked) -> tuple[int, str]:
    longest, of_what = model.max_position_embeddings, f"the model's {model.max_position_embeddings} positions"
    fixed = rope.fixed_until(model)
    if gpu.is_cpu and fixed is not None and fixed < longest:
        # The CPU engine keeps the keys of earlier tokens as they were turned.
        longest, of_what = fixed, f"the {fixed} tokens after which the model's rope turns all of them otherwise"
    needed = asked.workload.isl_max + asked.workload.osl_max if asked.workload else 0
    if needed > longest:
        raise PlanInfeasible(
            f"A request of {asked.workload.isl_max if asked.workload else 0} and "
            f"{asked.workload.osl_max if asked.workload else 0} tokens is beyond {of_what}.",
            hint=f"Try --isl and --osl of {longest} together at the most.",
        )
    if asked.max_seq_len:
        if asked.max_seq_len > longest:
            raise PlanInfeasible(
                f"--max-seq-len {asked.max_seq_len} is beyond {of_what}.", hint=f"Try --max-seq-len {longest}."
            )
        if asked.max_seq_len < needed:
            raise PlanInfeasible(
                f"--max-seq-len {asked.max_seq_len} is less than the {needed} tokens of the longest request.",
                hint=f"Try --max-seq-len {needed}.",
            )
        return asked.max_seq_len, "as asked"
    if needed:
        return needed, "the longest prompt and answer of the workload together"
    if longest <= DEFAULT_SEQ_LEN:
        return longest, f"all of {of_what}"
    return DEFAULT_SEQ_LEN, f"a part of {of_what}; more costs KV cache"


def _num_tokens(gpu: GpuSpec, asked: Asked, seq_len: int) -> tuple[int, str]:
    if asked.max_num_tokens:
        return asked.max_num_tokens, "as asked"
    if gpu.is_cpu:
        return CPU_NUM_TOKENS, "prefill in pieces, so that running streams go on"
    least = LEAST_NUM_TOKENS if asked.workload else 0
    return min(DEFAULT_NUM_TOKENS, max(seq_len, least)), "activation memory grows with it"


def _batch_size(loaded: Loaded, asked: Asked, alone: Limits) -> tuple[int, str]:
    """Return the largest batch whose own buffers leave room for its requests."""
    if asked.max_batch_size:
        return asked.max_batch_size, "as asked"
    load = asked.workload
    wanted = load.concurrency if load and load.concurrency else None
    if loaded.gpu.is_cpu:
        return min(
            wanted or CPU_BATCH_SIZE, CPU_BATCH_SIZE
        ), "beyond it more requests in flight only wait for the cores"
    each = kv_cache.bytes_of_request(loaded.cached, request_tokens(asked, alone.max_seq_len))
    if load is None:
        each = int(each * TYPICAL_FILL)
    batch = _largest_batch(loaded, asked, alone, each=each, most=wanted or MAX_BATCH_SIZE)
    pool = pool_bytes(loaded, asked, dataclasses.replace(alone, max_batch_size=batch))
    return batch, _batch_reason(batch, wanted, pool, is_load=load is not None)


def _largest_batch(loaded: Loaded, asked: Asked, alone: Limits, *, each: int, most: int) -> int:
    """Return the most requests of EACH bytes that run at once: a larger batch takes room of its own from the cache.

    However short they are, the longest must still fit.
    """
    longest = kv_cache.bytes_of_request(loaded.cached, _longest_tokens(asked, alone))
    low, high = 1, most
    while low < high:
        batch = (low + high + 1) // 2
        if pool_bytes(loaded, asked, dataclasses.replace(alone, max_batch_size=batch)) >= max(longest, batch * each):
            low = batch
        else:
            high = batch - 1
    return low


def _batch_reason(batch: int, wanted: int | None, pool: int, *, is_load: bool) -> str:
    if batch == wanted:
        return "the concurrency that is asked for"
    what = "requests of the workload" if is_load else "requests of a quarter of max_seq_len"
    return f"{what} that {pool / memory.GIB:.1f} GiB of KV cache hold"


def _policy(asked: Asked) -> tuple[str, str]:
    load = asked.workload
    if load and load.osl_max >= WIDE_ANSWERS * load.osl:
        ratio = load.osl_max / load.osl
        return "max_utilization", f"the longest answer is {ratio:.1f} times the mean: reserving it would idle the cache"
    return POLICY, "a request that runs is not thrown out"


def _kv_choices(loaded: Loaded, asked: Asked, limits: Limits, pool: int) -> list[tuple[str, object, str]]:
    if loaded.gpu.is_cpu:
        return []
    fraction = _fraction(loaded, limits, pool)
    how = "TensorRT-LLM's own share" if asked.headroom is None else f"{asked.headroom:.0%} of the card at the most"
    return [
        ("kv_cache_free_gpu_mem_fraction", f"{fraction:.2f}", f"of what weights and buffers leave; {how}"),
        ("tokens_per_block", TOKENS_PER_BLOCK, "prefixes are reused by whole blocks; smaller ones cost bookkeeping"),
    ]


def _fraction(loaded: Loaded, limits: Limits, pool: int) -> float:
    left = loaded.usable_bytes - needed_bytes(loaded, limits)
    # Rounded down, so that the server does not take more than was asked.
    return int(100 * pool / left + 1e-9) / 100 if left > 0 else KV_FRACTION


def _sizing(
    loaded: Loaded, asked: Asked, limits: Limits, *, kv_bytes: int, policy: str, choices: tuple[Choice, ...]
) -> Sizing:
    activations = 0 if loaded.gpu.is_cpu else memory.activation_bytes(loaded.model, limits, loaded.recipe)
    runtime = memory.CPU_RUNTIME_BYTES if loaded.gpu.is_cpu else memory.runtime_bytes(loaded.model, limits)
    used = loaded.weights_bytes + activations + runtime + kv_bytes
    per_token = kv_cache.bytes_per_token(loaded.cached)
    blocks = kv_bytes // (per_token * TOKENS_PER_BLOCK)
    tokens = request_tokens(asked, limits.max_seq_len)
    each = kv_cache.bytes_of_request(loaded.cached, tokens, tokens_per_block=TOKENS_PER_BLOCK)
    held = kv_bytes // each
    return Sizing(
        limits=limits,
        memory=MemoryBudget(
            weights=loaded.weights_bytes,
            kv_cache=kv_bytes,
            activations=activations,
            runtime=runtime,
            free=max(0, loaded.usable_bytes - used),
            total=max(loaded.usable_bytes, used),
        ),
        kv=KvPool(
            bytes_per_token=per_token,
            blocks=blocks,
            tokens_per_block=TOKENS_PER_BLOCK,
            max_tokens=blocks * TOKENS_PER_BLOCK,
        ),
        kv_fraction=KV_FRACTION if loaded.gpu.is_cpu else _fraction(loaded, limits, kv_bytes),
        request_tokens=tokens,
        max_concurrency=min(held, limits.max_batch_size),
        binding=_binding(loaded, asked, limits, held),
        scheduler_policy=policy,
        choices=choices,
    )


def _binding(loaded: Loaded, asked: Asked, limits: Limits, held: int) -> str:
    """Return what stops one more request: the cache, also where the batch was chosen by it."""
    if held < limits.max_batch_size:
        return "kv_cache"
    wanted = asked.workload.concurrency if asked.workload else None
    chosen = asked.max_batch_size or (CPU_BATCH_SIZE if loaded.gpu.is_cpu else wanted or MAX_BATCH_SIZE)
    return "max_batch_size" if limits.max_batch_size >= min(chosen, wanted or chosen) else "kv_cache"
