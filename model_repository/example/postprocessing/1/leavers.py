"""Clients that left: an ensemble tells this step alone, so this step tells the engine."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

#: Asking costs a message to the server, so each request is asked about now and then, not at every token.
CHECK_EVERY_S = 0.25
FORGET_AFTER_S = 60.0


class Leavers:
    """Stops the engine's work for requests whose client has gone; the request id, if there is one, says which."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.checked: dict[str, float] = {}

    def notice(self, request: Any) -> None:
        """Look whether the client is still there."""
        request_id, now = request.request_id(), time.monotonic()
        if not request_id or now - self.checked.get(request_id, 0.0) < CHECK_EVERY_S:
            return
        if len(self.checked) > 1000:
            self.checked = {key: at for key, at in self.checked.items() if now - at < FORGET_AFTER_S}
        self.checked[request_id] = now
        if request.is_cancelled():
            threading.Thread(target=self.stop, args=(request_id,), daemon=True).start()

    def stop(self, request_id: str) -> None:
        """Send the engine the order to stop; an id that it does not know is fine."""
        inputs = [pb_utils.Tensor("stop", np.ones((1, 1), bool))]
        inputs += [pb_utils.Tensor(name, np.ones((1, 1), np.int32)) for name in ("input_lengths", "request_output_len")]
        call = pb_utils.InferenceRequest(
            model_name=self.model, inputs=inputs, requested_output_names=["output_ids"], request_id=request_id
        )
        for _ in call.exec(decoupled=True):
            pass
