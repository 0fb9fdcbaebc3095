"""Says the input back max_tokens times, a response each: the smallest decoupled model."""

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        for request in requests:
            text = pb_utils.get_input_tensor_by_name(request, "text_input").as_numpy()
            times = int(pb_utils.get_input_tensor_by_name(request, "max_tokens").as_numpy()[0])
            sender = request.get_response_sender()
            for _ in range(times):
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("text_output", text)]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
