"""Tokens to text."""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from detokenizer import Detokenizer
from leavers import Leavers
from served import Refused, flag, parameters, path_of, refusal, tokenizer_in, wants_code


class TritonPythonModel:
    """Decodes every response by itself: an ensemble gives this step no memory of a request."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the tokenizer."""
        settings = parameters(args)
        self.detokenizer = Detokenizer(
            tokenizer_in(path_of(args, settings, "tokenizer_dir")),
            skip_special_tokens=flag(settings.get("skip_special_tokens", "true")),
        )
        self.leavers = Leavers(settings["stops_model"]) if "stops_model" in settings else None

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer each request on its own."""
        return [self.answer(request) for request in requests]

    def answer(self, request: Any) -> Any:
        """Return the text of every sequence, or an error of one sentence."""
        try:
            if self.leavers:
                self.leavers.notice(request)
            tokens = pb_utils.get_input_tensor_by_name(request, "TOKENS_BATCH").as_numpy()
            lengths = pb_utils.get_input_tensor_by_name(request, "SEQUENCE_LENGTH").as_numpy()
            texts = self.texts(tokens, lengths)
        except Exception as error:  # noqa: BLE001 - the door: what is not caught here reaches the client as a traceback
            return pb_utils.InferenceResponse(error=refusal(error, has_code=wants_code(request)))
        return pb_utils.InferenceResponse([pb_utils.Tensor("OUTPUT", texts)])

    def texts(self, tokens: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Decode [rows, sequences, tokens], each sequence up to its length."""
        if tokens.shape[:2] != lengths.shape:
            raise Refused(f"TOKENS_BATCH is {list(tokens.shape)} and SEQUENCE_LENGTH is {list(lengths.shape)}.")
        texts = np.empty(lengths.shape, object)
        for place, length in np.ndenumerate(lengths):
            if length < 0:
                raise Refused(f"SEQUENCE_LENGTH is {length}; it must be 0 or more.")
            own = tokens[place][:length].tolist()
            if own and min(own) < 0:
                raise Refused(f"TOKENS_BATCH has the token {min(own)}; tokens are 0 and above.")
            texts[place] = self.detokenizer.text(own).encode()
        return texts.reshape(-1)  # one dimension, as NVIDIA's own answers: clients read text_output[0]
