"""The time of one step: what each resource takes, added up; sequences decode in it while prompts are read."""

from __future__ import annotations

from dataclasses import dataclass

from toolkit.plan.speed.rates import Rates
from toolkit.plan.speed.shapes import Shape

#: The parts of a step, and the word for what bounds it.
BOUND_BY = {
    "weights": "bandwidth",
    "kv": "bandwidth",
    "elementwise": "bandwidth",
    "linears": "compute",
    "attention": "compute",
    "messages": "communication",
    "wire": "communication",
    "host": "overhead",
    "launches": "overhead",
}
#: The same parts, by what their uncertainty is called.
UNSURE_BY = {
    "weights": "bandwidth",
    "kv": "kv",
    "elementwise": "bandwidth",
    "linears": "compute",
    "attention": "attention",
    "messages": "communication",
    "wire": "communication",
    "host": "overhead",
    "launches": "overhead",
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one step does: sequences that get a token, prompt tokens that are read."""

    sequences: float
    context: float = 0.0  # tokens behind each sequence, mean
    prompt_tokens: float = 0.0
    prompt_pairs: float = 0.0  # see Shape.prompt_pairs
    checked: float = 1.0  # tokens of each sequence that pass the model: more than one when it speculates
    prompt_share: float = 1.0  # of steps like it, those in which the prompt tokens come, all at once


def parts_of(shape: Shape, rates: Rates, step: Step) -> dict[str, float]:
    """Return the seconds of a step by part. Each is linear in its rates, so a fit is a matter of shares.

    With PP stages as many micro-batches are under way, each of which reads the weights of its own.
    """
    stages = shape.pp
    tokens = step.sequences * step.checked + step.prompt_tokens
    experts = _distinct_experts(shape, step) * shape.expert_parameters
    weights = (shape.dense_parameters + experts) * shape.weight_bytes + shape.head_bytes
    head = 2.0 * shape.head_parameters * step.sequences * step.checked * rates.head_flop
    linears = tokens * (shape.token_flops * rates.flop + shape.expert_flops * rates.expert_flop)
    attention = step.prompt_pairs * shape.pair_flops * rates.attention_flop
    # Where no two query heads share a key, ordinary cores multiply it, and may be slower than memory brings it.
    per_key = max(
        shape.read_bytes(step.context) * rates.kv_byte,
        shape.kv_elements * step.context * rates.kv_element,
        shape.latent_flops * step.context * step.checked * rates.attention_flop,
    )
    seconds = {
        "weights": weights * rates.weight_byte * stages,
        "linears": linears + head,
        "attention": attention,
        "kv": step.sequences * per_key,
        "elementwise": tokens * (rates.token + rates.expert_token),
        "messages": rates.message * stages,
        "wire": tokens * rates.wire_token,
        "launches": rates.launch * stages,
        "host": rates.step * stages + step.sequences * (rates.sequence + rates.vocabulary),
    }
    return {part: value * rates.slowdown for part, value in seconds.items()}


def _distinct_experts(shape: Shape, step: Step) -> float:
    """Return the experts that a mean step needs: a prompt needs nearly all, one decoding sequence its own few.

    A micro-batch needs those of its own tokens only.
    """
    decoding = step.sequences * step.checked
    share = min(1.0, step.prompt_share)
    with_prompt = decoding + step.prompt_tokens / share if share else decoding
    found = share * shape.distinct_experts(with_prompt / shape.pp)
    return found + (1.0 - share) * shape.distinct_experts(decoding / shape.pp)
