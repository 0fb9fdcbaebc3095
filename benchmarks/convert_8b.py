"""Convert an 8B-shaped Llama beside a plain read-convert-write loop over the same files: speed and peak memory.

    python benchmarks/convert_8b.py WORK_FOLDER [--quants int8 int4_rtn fp8_rowwise fp8] [--rounds 3] [--layers 32]

Random bfloat16 weights, 16 GB in 4 shards, are made once. Each round runs the loop and then `trtk quantize` for each
recipe, in processes of their own; memory is the peak of RssAnon, which leaves the page cache of mapped files out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

SHAPE = {"hidden": 4096, "inner": 14336, "heads": 32, "kv_heads": 8, "head_dim": 128, "vocab": 128256}
SHARDS = 4
LOOP = """
import sys, torch
from pathlib import Path
from safetensors import safe_open
from safetensors.torch import save_file
source, target = map(Path, sys.argv[1:])
target.mkdir()
for path in sorted(source.glob("*.safetensors")):
    with safe_open(str(path), "pt") as file:
        tensors = {name: file.get_tensor(name).to(torch.float16) for name in file.keys()}
    save_file(tensors, str(target / path.name))
    del tensors
"""


def make_model(folder: Path, layers: int, tokenizer: Path | None) -> None:
    """Write config.json and random shards, unless they are there."""
    import torch
    from safetensors.torch import save_file

    if (folder / "config.json").is_file():
        return
    folder.mkdir(parents=True)
    shape = SHAPE
    sizes = {
        "self_attn.q_proj": (shape["heads"] * shape["head_dim"], shape["hidden"]),
        "self_attn.k_proj": (shape["kv_heads"] * shape["head_dim"], shape["hidden"]),
        "self_attn.v_proj": (shape["kv_heads"] * shape["head_dim"], shape["hidden"]),
        "self_attn.o_proj": (shape["hidden"], shape["heads"] * shape["head_dim"]),
        "mlp.gate_proj": (shape["inner"], shape["hidden"]),
        "mlp.up_proj": (shape["inner"], shape["hidden"]),
        "mlp.down_proj": (shape["hidden"], shape["inner"]),
    }
    torch.manual_seed(0)
    weight_map = {}

    def random(*size: int) -> torch.Tensor:
        return torch.empty(size, dtype=torch.bfloat16).normal_(std=0.02)

    for shard in range(SHARDS):
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        tensors = {}
        for layer in range(shard * layers // SHARDS, (shard + 1) * layers // SHARDS):
            prefix = f"model.layers.{layer}."
            for module, size in sizes.items():
                tensors[f"{prefix}{module}.weight"] = random(*size)
            for norm in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"{prefix}{norm}.weight"] = torch.ones(shape["hidden"], dtype=torch.bfloat16)
        if shard == 0:
            tensors["model.embed_tokens.weight"] = random(shape["vocab"], shape["hidden"])
        if shard == SHARDS - 1:
            tensors["lm_head.weight"] = random(shape["vocab"], shape["hidden"])
            tensors["model.norm.weight"] = torch.ones(shape["hidden"], dtype=torch.bfloat16)
        save_file(tensors, str(folder / name))
        weight_map |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    if tokenizer:
        shutil.copyfile(tokenizer, folder / "tokenizer.json")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["inner"],
        "num_hidden_layers": layers,
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "vocab_size": shape["vocab"],
        "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
    }
    (folder / "config.json").write_text(json.dumps(config))


def run_watched(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and the peak of its RssAnon in MiB."""
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak_kib = 0

    def watch() -> None:
        nonlocal peak_kib
        while process.poll() is None:
            try:
                status = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                return
            for line in status.splitlines():
                if line.startswith("RssAnon"):
                    peak_kib = max(peak_kib, int(line.split()[1]))
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    watcher.join()
    if code:
        raise SystemExit(f"{command} ended with {code}")
    return time.monotonic() - started, peak_kib / 1024


def main() -> None:
    """Make the model, run the rounds, print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("work", type=Path)
    parser.add_argument("--quants", nargs="+", default=["int8", "int4_rtn", "fp8_rowwise"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--tokenizer", type=Path, help="tokenizer.json, for recipes that calibrate")
    asked, more = parser.parse_known_args()
    source = asked.work / f"llama-8b-{asked.layers}"
    make_model(source, asked.layers, asked.tokenizer)
    size_gb = sum(path.stat().st_size for path in source.glob("*.safetensors")) / 1e9
    found: dict[str, list[tuple[float, float]]] = {}
    for _ in range(asked.rounds):
        for name in ("loop", *asked.quants):
            target = asked.work / "out"
            shutil.rmtree(target, ignore_errors=True)
            command = [sys.executable, "-c", LOOP, str(source), str(target)]
            if name != "loop":
                command = [sys.executable, "-m", "toolkit.cli", "quantize", str(source), "--quant", name]
                command += ["-o", str(target), *more]
            found.setdefault(name, []).append(run_watched(command))
            shutil.rmtree(target)
    print(f"{size_gb:.1f} GB of bfloat16 in {SHARDS} shards, {asked.rounds} rounds")
    loops = [seconds for seconds, _ in found["loop"]]
    for name, runs in found.items():
        seconds = [run[0] for run in runs]
        ratios = [loop / mine for loop, mine in zip(loops, seconds, strict=True)]
        print(
            f"{name:12} {statistics.median(seconds):7.1f} s  peak {max(run[1] for run in runs):6.0f} MiB  "
            f"speed/loop {statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
