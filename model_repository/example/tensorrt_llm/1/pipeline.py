"""A sequence in OpenVINO GenAI's words."""

from __future__ import annotations

from typing import Any

import numpy as np
from grammar import structure_of
from row import Row


def begun(pipeline: Any, number: int, row: Row, *, banned: set[int]) -> Any:
    """Add a sequence to the pipeline, from its tokens so far on; return its handle."""
    import openvino

    prompt = np.concatenate([row.asked.prompt, np.array(row.tokens, np.int64)]).reshape(1, -1)
    return pipeline.add_request(number, openvino.Tensor(prompt), config_of(row, banned))


def config_of(row: Row, banned: set[int]) -> Any:
    """Return a GenerationConfig for what is left of a row; BANNED must not be its next token."""
    import openvino_genai

    asked, made = row.asked, len(row.tokens)
    config = openvino_genai.GenerationConfig()
    for name, value in asked.sampling.items():
        setattr(config, name, value)
    config.max_new_tokens = asked.max_tokens - made
    # Tokens that stop are those that cannot come in the first min_new_tokens: the one way to forbid a token.
    config.stop_token_ids = row.words.ends | banned
    config.min_new_tokens = max(asked.sampling["min_new_tokens"] - made, 1 if banned else 0)
    config.ignore_eos = not config.stop_token_ids
    if asked.end_id >= 0:
        config.eos_token_id = asked.end_id
    if made and "rng_seed" in asked.sampling:
        config.rng_seed = (asked.sampling["rng_seed"] + made) % 2**64
    if asked.has_log_probs:
        config.logprobs = 1
    if asked.guide:
        config.structured_output_config = structure_of(*asked.guide)
    return config


def warm_up(pipeline: Any) -> float:
    """Run one sequence that fits into one KV block; return the percentage of the cache that a block is."""
    import openvino
    import openvino_genai

    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos = 2, True
    handle = pipeline.add_request(0, openvino.Tensor(np.zeros((1, 1), np.int64)), config)
    share = 0.0
    while handle.get_status() == openvino_genai.GenerationStatus.RUNNING:
        pipeline.step()
        share = max(share, pipeline.get_metrics().cache_usage)
    pipeline.step()  # what has ended is freed in the step after
    return share
