"""How long a start may take, from what it has to read and do."""

from __future__ import annotations

from toolkit.serve.targets import Artefact

#: Importing libraries, starting processes, compiling kernels, capturing CUDA graphs, by kind.
BASE_S = {"openvino": 180.0, "trtllm": 180.0, "llmapi": 420.0}
#: What a cold network disk still gives.
READ_BYTES_PER_S = 100e6
#: Compiling an engine at the first start: TensorRT takes minutes, and half an hour for large models.
COMPILE_S, COMPILE_S_PER_GB = 1200.0, 60.0


def startup_timeout_s(found: Artefact | None) -> float:
    """Return the time to become ready: base + bytes / 100 MB/s, and what compiling takes where that is to be done.

    A bare repository says nothing about its size: it gets the base.
    """
    if found is None:
        return BASE_S["openvino"]
    seconds = BASE_S.get(found.kind, max(BASE_S.values())) + found.loaded_bytes / READ_BYTES_PER_S
    if found.is_deferred and found.kind == "trtllm":
        seconds += COMPILE_S + COMPILE_S_PER_GB * found.loaded_bytes / 1e9
    return float(round(seconds))
