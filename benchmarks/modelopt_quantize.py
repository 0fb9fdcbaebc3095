"""Quantize a Hugging Face folder with NVIDIA ModelOpt: the peer's half of quantize_against_modelopt.py.

    python benchmarks/modelopt_quantize.py MODEL_FOLDER FORMAT CALIB_TEXT OUT [--samples 16 --length 512]

Prints one JSON line: seconds of each step and the peak of resident memory. FORMAT is one of trtk's names.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import time
import warnings

CONFIGS = {
    "fp16": None,
    "int4": "INT4_AWQ_CFG",
    "w4a8_awq": "W4A8_AWQ_BETA_CFG",
    "int8_sq": "INT8_SMOOTHQUANT_CFG",
    "fp8": "FP8_DEFAULT_CFG",
    "fp8_rowwise": "FP8_PER_CHANNEL_PER_TOKEN_CFG",
    "nvfp4": "NVFP4_DEFAULT_CFG",
}
INT4 = {"int4", "w4a8_awq"}


def config_of(mtq, name, group_size):
    """Return ModelOpt's configuration with our group size in the integer formats."""
    config = copy.deepcopy(getattr(mtq, CONFIGS[name]))
    for entry in config["quant_cfg"] if name in INT4 else ():
        for quantizer in entry["cfg"] if isinstance(entry.get("cfg"), list) else [entry.get("cfg") or {}]:
            if "block_sizes" in quantizer:
                quantizer["block_sizes"][-1] = group_size
    return config


def main() -> None:
    """Load, calibrate, export."""
    parser = argparse.ArgumentParser()
    for name in ("model", "format", "text", "out"):
        parser.add_argument(name)
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--group-size", type=int, default=64)
    parser.add_argument("--decoder", default="llama")
    parser.add_argument("--dtype", default="auto", help="auto: the checkpoint's own, as ModelOpt's examples load it")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    started = time.monotonic()
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.torch.export import export_tensorrt_llm_checkpoint
    from tokenizers import Tokenizer
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(asked.model, dtype=asked.dtype).eval()
    with open(asked.text, encoding="utf-8") as stream:  # noqa: PTH123 - a script
        ids = Tokenizer.from_file(f"{asked.model}/tokenizer.json").encode(stream.read(), add_special_tokens=False).ids
    rows = torch.tensor(ids[: asked.samples * asked.length]).view(asked.samples, asked.length)
    loaded = time.monotonic()
    if CONFIGS[asked.format]:
        model = mtq.quantize(
            model, config_of(mtq, asked.format, asked.group_size), lambda it: [it(row.view(1, -1)) for row in rows]
        )
    quantized = time.monotonic()
    with torch.inference_mode():
        export_tensorrt_llm_checkpoint(
            model, asked.decoder, torch.float16, asked.out, inference_tensor_parallel=1, inference_pipeline_parallel=1
        )
    ended = time.monotonic()
    print(
        json.dumps(
            {
                "load_s": round(loaded - started, 1),
                "quantize_s": round(quantized - loaded, 1),
                "export_s": round(ended - quantized, 1),
                "total_s": round(ended - started, 1),
                "peak_rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
            }
        )
    )


if __name__ == "__main__":
    main()
