"""What the models behind this one are asked, in their tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from served import Refused

REPLACEMENT = "\ufffd"
#: Ours → preprocessing's.
TO_PREPROCESSING = {
    "text_input": "QUERY",
    "decoder_text_input": "DECODER_QUERY",
    "max_tokens": "REQUEST_OUTPUT_LEN",
    "bad_words": "BAD_WORDS_DICT",
    "stop_words": "STOP_WORDS_DICT",
    "embedding_bias_words": "EMBEDDING_BIAS_WORDS",
    "embedding_bias_weights": "EMBEDDING_BIAS_WEIGHTS",
    "end_id": "END_ID",
    "pad_id": "PAD_ID",
    "prompt_table_extra_id": "PROMPT_TABLE_EXTRA_ID",
    "messages": "MESSAGES",
}
#: Preprocessing's → the engine's.
TO_ENGINE = {
    "INPUT_ID": "input_ids",
    "REQUEST_INPUT_LEN": "input_lengths",
    "DECODER_INPUT_ID": "decoder_input_ids",
    "REQUEST_DECODER_INPUT_LEN": "decoder_input_lengths",
    "BAD_WORDS_IDS": "bad_words_list",
    "STOP_WORDS_IDS": "stop_words_list",
    "EMBEDDING_BIAS": "embedding_bias",
    "REQUEST_OUTPUT_LEN": "request_output_len",
    "OUT_END_ID": "end_id",
    "OUT_PAD_ID": "pad_id",
    "OUT_PROMPT_TABLE_EXTRA_IDS": "prompt_table_extra_ids",
}
#: Ours → the engine's, where the names differ.
RENAMED = {"top_k": "runtime_top_k", "top_p": "runtime_top_p", "length_penalty": "len_penalty", "stream": "streaming"}
#: Inputs of this model alone.
REFUSED = ("image_input", "image_bytes_input", "image_url_input", "video_bytes_input")
OWN = {*REFUSED, "num_draft_tokens", "use_draft_logits"}


def check(asked: dict[str, np.ndarray]) -> None:
    """Refuse what the three models behind this one cannot do."""
    if asked["text_input"].size != 1:
        raise Refused(f"text_input holds {asked['text_input'].size} texts; send one in each request.")
    for name in REFUSED:
        if name in asked and asked[name].size and any(asked[name].reshape(-1).tolist()):
            raise Refused(f"{name} is not supported: this repository serves text.")


def engine_inputs(asked: dict[str, np.ndarray], tokens: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the engine's inputs: preprocessing's outputs, and what goes over as it is."""
    inputs = {TO_ENGINE[name]: value for name, value in tokens.items()}
    inputs |= {RENAMED.get(name, name): value for name, value in asked.items() if name not in TO_PREPROCESSING}
    return {name: value for name, value in inputs.items() if name not in OWN}


def request_for(model: str, inputs: dict[str, np.ndarray], outputs: list[str], request_id: str) -> Any:
    """Return a call that is ready to be made."""
    return pb_utils.InferenceRequest(
        model_name=model,
        inputs=[pb_utils.Tensor(name, value) for name, value in inputs.items()],
        requested_output_names=outputs,
        request_id=request_id,
    )


def arrays_of(response: Any) -> dict[str, np.ndarray]:
    """Return a response's tensors by name; what a model refuses is refused here in its words."""
    if response.has_error():
        raise Refused(response.error().message(), code=response.error().code())
    return {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}


def batch_of(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """Return postprocessing's inputs for one run of tokens."""
    return {"TOKENS_BATCH": tokens, "SEQUENCE_LENGTH": np.array([[tokens.shape[2]]], np.int32)}
