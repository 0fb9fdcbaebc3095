"""The name of a compiled engine's folder: what a TensorRT engine is bound to."""

from __future__ import annotations

import re

from toolkit.specs import Release


def engine_key(sm: int, release: Release) -> str:
    """Return the folder below engine/ of what RELEASE compiles for SM: `sm86-trtllm1.2.1-trt10.14.1.48`.

    An engine runs on no other compute capability and under no other TensorRT-LLM or TensorRT, so engines for several
    cards lie side by side, and those of two releases with the same builder are one.
    """
    key = f"sm{sm}-trtllm{release.tensorrt_llm}-trt{release.tensorrt}"
    assert re.fullmatch(r"[a-z0-9.+-]+", key), "a release's versions are plain; this becomes a folder and a shell word"
    return key
