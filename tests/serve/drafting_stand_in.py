"""Stands for NVIDIA's backend: the next token follows from the text; the draft is wrong at every third place."""

import numpy as np
import triton_python_backend_utils as pb_utils

FIRST, COUNT = 40, 200


class TritonPythonModel:
    def initialize(self, args):
        self.is_draft = args["model_name"].endswith("draft")
        self.steps = 0

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            asked = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
            if "stop" not in asked:
                tokens = np.array([[self.tokens(asked)]], np.int32)
                length = np.array([[tokens.shape[2]]], np.int32)
                self.steps += 1
                outputs = {"output_ids": tokens, "sequence_length": length}
                if "num_output_tokens" in request.requested_output_names():
                    outputs["num_output_tokens"] = np.array([[self.steps]], np.int32)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor(*one) for one in outputs.items()]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def tokens(self, asked):
        text, made = asked["input_ids"].reshape(-1).tolist(), []
        limit = int(asked["request_output_len"].max())
        proposals = [] if self.is_draft else asked.get("draft_input_ids", np.empty(0)).reshape(-1).tolist()
        while len(made) < limit:
            here = len(text) + len(made)
            made.append(FIRST + (here * 31 + self.is_draft * (here % 3 == 0)) % COUNT)
            if not self.is_draft and (len(made) > len(proposals) or proposals[len(made) - 1] != made[-1]):
                break
        return made if self.is_draft or proposals else self.alone(text, limit)

    def alone(self, text, limit):
        return [FIRST + (len(text) + step) * 31 % COUNT for step in range(limit)]
