"""Checkpoint → OpenVINO IR with the checkpoint's own integers, and its tokenizer as IR beside it."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from toolkit.engine.checkpoint_reader import CheckpointReader
from toolkit.engine.checkpoint_spec import spec_of
from toolkit.engine.openvino_files import save_ir
from toolkit.engine.openvino_graph import decoder_model
from toolkit.engine.openvino_paged import need_windows
from toolkit.engine.openvino_tokenizer import save_tokenizer
from toolkit.engine.toolchain import CHECKPOINT, ENGINE, TOKENIZER, Toolchain
from toolkit.files import write_json
from toolkit.specs import BuildPlan, Progress

STEP = "Compile for the CPU"
PACKAGES = ("openvino", "openvino-genai", "openvino-tokenizers")


def compile_ir(plan: BuildPlan, folder: Path, progress: Progress) -> None:
    """Write openvino_model.xml/.bin, the tokenizer's IR, and what the engine is to run with."""
    target = folder / ENGINE
    target.mkdir(parents=True, exist_ok=True)
    progress(STEP, 0, 3)
    checkpoint = CheckpointReader(folder / CHECKPOINT)
    model, weights = decoder_model(checkpoint, max_seq_len=plan.limits.max_seq_len)
    need_windows(model, spec_of(checkpoint.config))
    progress(STEP, 1, 3)
    save_ir(model, target / "openvino_model.xml")
    del model, weights
    progress(STEP, 2, 3)
    save_tokenizer(folder / TOKENIZER, target)
    write_json(target / "runtime.json", runtime(plan))
    progress(STEP, 3, 3)


def runtime(plan: BuildPlan) -> dict[str, str]:
    """Return the properties that the pipeline is opened with.

    Activations are computed in float32: some CPUs would choose bfloat16, and CPUs with VNNI or AMX would round those
    before quantized linears to int8. What is served then is no longer what the checkpoint says, nor the same whatever
    else is in flight (docs/benchmarks.md). A 16-bit model keeps its KV cache in 16 bits too; quantized ones take
    OpenVINO's default.
    """
    exact = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
    if plan.conversion.recipe.weight_bits == 16:
        return {**exact, "KV_CACHE_PRECISION": "f16"}
    return exact


def versions() -> dict[str, str]:
    """Return the versions of what compiled."""
    return {name: metadata.version(name) for name in PACKAGES}


TOOLCHAIN = Toolchain(name="openvino", kind="openvino", needs_builder=False, compile=compile_ir, versions=versions)
