"""What the user asked of an engine beyond its limits: adapters, speculation, logits, single flags."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.errors import PlanInfeasible
from toolkit.specs import Adapter, Choice, ModelSpec

#: Speculative modes that need heads of their own in the checkpoint, and the architecture that has them.
HEADS = {"medusa": "MedusaForCausalLM", "eagle": "EagleForCausalLM"}
SPECULATIVE = ("draft_tokens_external", "lookahead_decoding", *HEADS)
LOOKAHEAD = "lookahead_decoding"
#: Of lookahead where the user says nothing: windows of 7, 7-grams, 7 of them verified.
LOOKAHEAD_SIZE = 7
#: Draft tokens of a draft model where the user says nothing.
EXTERNAL_LENGTH = 5
LOGITS = {
    "context": "gather_context_logits",
    "generation": "gather_generation_logits",
    "all": "gather_all_token_logits",
}
#: Linears of Hugging Face's adapters → TensorRT-LLM's names for them.
LORA_MODULES = {
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_dense",
    "qkv_proj": "attn_qkv",
    "gate_proj": "mlp_h_to_4h",
    "down_proj": "mlp_4h_to_h",
    "up_proj": "mlp_gate",
}


@dataclass(frozen=True, kw_only=True)
class AskedEngine:
    """Options of `trtk build` that become flags of trtllm-build, or keys of model.yaml."""

    speculative: str | None = None
    max_draft_len: int | None = None
    adapters: tuple[Adapter, ...] = ()
    max_lora_rank: int | None = None
    logits: str | None = None  # context, generation, all
    workers: int | None = None
    set_flags: tuple[tuple[str, str], ...] = ()


def speculative_flags(model: ModelSpec, asked: AskedEngine) -> tuple[Choice, ...]:
    """Return the flags of a speculative mode; raises PlanInfeasible where the model has not the heads for it."""
    mode = asked.speculative
    if mode is None:
        if asked.max_draft_len:
            raise PlanInfeasible(
                f"--max-draft-len {asked.max_draft_len} is of a speculative mode, and none was asked for.",
                hint="Try --speculative lookahead_decoding, or leave --max-draft-len out.",
            )
        return ()
    if mode in HEADS and model.architecture != HEADS[mode]:
        raise PlanInfeasible(
            f"--speculative {mode} needs a checkpoint with such heads ({HEADS[mode]}), and trtk makes one of "
            f"{model.architecture}.",
            hint="Try --speculative lookahead_decoding, which needs no heads and no draft model.",
        )
    if mode == LOOKAHEAD and asked.max_draft_len and not lookahead_size(asked.max_draft_len):
        raise PlanInfeasible(
            f"--max-draft-len {asked.max_draft_len} is too short to look ahead: windows and n-grams of 2 take "
            f"{draft_length(2)} tokens.",
            hint=f"Try --max-draft-len {draft_length(LOOKAHEAD_SIZE)}.",
        )
    own = draft_length(LOOKAHEAD_SIZE) if mode == LOOKAHEAD else EXTERNAL_LENGTH
    length = asked.max_draft_len or own
    reasons = {
        "draft_tokens_external": "a smaller model proposes tokens and this one accepts or refuses them in one step",
        LOOKAHEAD: "the model guesses n-grams of its own text ahead; needs no draft model",
    }
    size = lookahead_size(length)
    default = (
        f"windows and n-grams of {size}, {size} verified" if mode == LOOKAHEAD else "what a small draft model pays for"
    )
    return (
        Choice(name="speculative_decoding_mode", value=mode, reason=reasons[mode]),
        Choice(name="max_draft_len", value=str(length), reason="as asked" if asked.max_draft_len else default),
    )


def draft_length(size: int) -> int:
    """Return the draft tokens of lookahead with windows, n-grams and verification sets of SIZE."""
    # (window - 1 + verified)(n - 1) + n - 2, from examples/lookahead in NVIDIA/TensorRT-LLM
    return (2 * size - 1) * (size - 1) + size - 2


def lookahead_size(length: int) -> int:
    """Return the largest windows and n-grams whose draft tokens are LENGTH or fewer; 0 where there are none."""
    return max((size for size in range(2, 17) if draft_length(size) <= length), default=0)


def parameters(flags: tuple[Choice, ...]) -> dict[str, str]:
    """Return what tensorrt_llm in the repository must be told of an engine with FLAGS."""
    of = {flag.name: flag.value for flag in flags}
    told: dict[str, str] = {}
    if of.get("speculative_decoding_mode") == LOOKAHEAD:
        size = str(lookahead_size(int(of["max_draft_len"])))
        sizes = ("lookahead_window_size", "lookahead_ngram_size", "lookahead_verification_set_size")
        told |= {"decoding_mode": "lookahead", **dict.fromkeys(sizes, size)}
    if rank := of.get("max_lora_rank"):
        told |= {"lora_cache_max_adapter_size": rank}
    return told


def lora_flags(asked: AskedEngine) -> tuple[Choice, ...]:
    """Return the flags of the adapters; raises PlanInfeasible for a rank below theirs or a module that has no name."""
    if not asked.adapters:
        if asked.max_lora_rank:
            raise PlanInfeasible(
                f"--max-lora-rank {asked.max_lora_rank} is of LoRA adapters, and none was given.",
                hint="Give one with --lora-dir, or leave --max-lora-rank out.",
            )
        return ()
    largest = max(asked.adapters, key=lambda adapter: adapter.rank)
    rank = asked.max_lora_rank or largest.rank
    if rank < largest.rank:
        raise PlanInfeasible(
            f"--max-lora-rank {rank} is below the rank {largest.rank} of the adapter {largest.name}.",
            hint=f"Try --max-lora-rank {largest.rank}.",
        )
    modules = lora_modules(asked.adapters)
    folders = " ".join(f"lora/{adapter.name}" for adapter in asked.adapters)
    named = ", ".join(adapter.name for adapter in asked.adapters)
    return (
        Choice(name="lora_plugin", value="auto", reason="adapters were given with --lora-dir"),
        Choice(name="lora_dir", value=folders, reason=f"{named}; the first says which linears are adapted"),
        Choice(name="lora_target_modules", value=" ".join(modules), reason="the linears that the adapters change"),
        Choice(
            name="max_lora_rank",
            value=str(rank),
            reason="as asked"
            if asked.max_lora_rank
            else f"the rank of {largest.name}; the plugin's workspace grows with it",
        ),
    )


def lora_modules(adapters: tuple[Adapter, ...]) -> list[str]:
    """Return TensorRT-LLM's names of every linear that an adapter changes."""
    found = {module for adapter in adapters for module in adapter.modules}
    if unknown := sorted(found - LORA_MODULES.keys()):
        owner = next(adapter for adapter in adapters if set(adapter.modules) & set(unknown))
        raise PlanInfeasible(
            f"The adapter {owner.name} changes {', '.join(unknown)}, which TensorRT-LLM has no LoRA for here.",
            hint=f"Train it on {', '.join(LORA_MODULES)} alone, or merge it into the weights before the build.",
        )
    return [name for module, name in LORA_MODULES.items() if module in found]


def logits_flags(asked: AskedEngine, speculative: tuple[Choice, ...]) -> tuple[Choice, ...]:
    """Return the flag that keeps logits; raises PlanInfeasible where speculation leaves none to keep."""
    if asked.logits is None:
        return ()
    if speculative and asked.logits != "generation":
        raise PlanInfeasible(
            f"--gather-logits {asked.logits} and --speculative {asked.speculative} exclude one another: draft tokens "
            "leave no logits of the context.",
            hint="Try --gather-logits generation.",
        )
    return (Choice(name=LOGITS[asked.logits], value="", reason="asked for with --gather-logits; costs memory"),)
