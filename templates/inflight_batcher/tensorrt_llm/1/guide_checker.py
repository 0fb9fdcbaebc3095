"""Tries grammars on a model of one tiny layer, in a process of its own: a bad one ends the pipeline that takes it.

python3 guide_checker.py ENGINE SCRATCH    # reads lines of JSON [type, guide]; answers each with "" or why not
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
import vocabulary
from grammar import structure_of
from openvino import opset13 as ops
from openvino.op.util import Variable, VariableInfo

HEAD = 32


def main() -> None:
    """Answer each line; the scratch folder goes with the last."""
    engine, folder = Path(sys.argv[1]), Path(sys.argv[2])
    try:
        answer_all(engine, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def answer_all(engine: Path, folder: Path) -> None:
    """Make the tiny model and try each grammar on it."""
    for file in engine.glob("openvino_*tokenizer.*"):
        (folder / file.name).symlink_to(file.resolve())
    openvino.save_model(tiny_model(vocabulary.size_in(engine)), str(folder / "openvino_model.xml"))
    pipeline = opened(folder)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a pipeline that a bad grammar ended complains of its own leaks
    for line in sys.stdin:
        kind, guide = json.loads(line)
        problem = ""
        try:
            attempt(pipeline, kind, guide)
        except RuntimeError as error:
            problem = sentence_of(error)
            pipeline = opened(folder)
        sys.stdout.write(json.dumps(problem) + "\n")
        sys.stdout.flush()


def opened(folder: Path) -> Any:
    """Load the tiny model."""
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.num_kv_blocks = 8
    return openvino_genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU")


def attempt(pipeline: Any, kind: str, guide: str) -> None:
    """Compile a grammar and take one token by it."""
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos = 1, True
    config.structured_output_config = structure_of(kind, guide)
    handle = pipeline.add_request(1, openvino.Tensor(np.zeros((1, 1), np.int64)), config)
    while handle.get_status() == openvino_genai.GenerationStatus.RUNNING:
        pipeline.step()


def sentence_of(error: RuntimeError) -> str:
    """Return what the library says is wrong, without its file names and times."""
    line = str(error).strip().splitlines()[0]
    return re.sub(r"^(.*\.cc:\d+: )?(Check failed: .* is false: )?", "", line)[:300]


def tiny_model(tokens: int) -> Any:
    """Return a decoder with one attention head, in the form that the pipeline takes."""
    long, short = openvino.Type.i64, openvino.Type.i32
    inputs = {name: ops.parameter([-1, -1], long, name) for name in ("input_ids", "attention_mask", "position_ids")}
    inputs["beam_idx"] = ops.parameter([-1], short, "beam_idx")
    for name, each in inputs.items():
        each.set_friendly_name(name)
        each.get_output_tensor(0).set_names({name})
    table = ops.constant(np.zeros((tokens, HEAD), np.float16))
    hidden = ops.convert(ops.gather(table, inputs["input_ids"], _integers(0)), "f32")
    # An input that nothing reads would keep the shape that it has without paged attention.
    places = ops.convert(ops.unsqueeze(inputs["position_ids"], _integers([2])), "f32")
    hidden = ops.add(hidden, ops.multiply(places, ops.constant(np.float32(1e-6))))
    split = ops.reshape(hidden, _integers([0, 0, 1, HEAD]), special_zero=True)
    heads = ops.transpose(split, _integers([0, 2, 1, 3]))
    sinks, remembered = [], []
    for name in ("key", "value"):
        info = VariableInfo()
        info.data_shape, info.data_type = openvino.PartialShape([-1, 1, -1, HEAD]), openvino.Type.f32
        info.variable_id = name
        variable = Variable(info)
        batch = ops.gather(ops.shape_of(inputs["input_ids"]), _integers([0]), _integers(0))
        shape = ops.concat([batch, _integers([1]), _integers([0]), _integers([HEAD])], 0)
        past = ops.read_value(ops.broadcast(ops.constant(np.float32(0)), shape), variable)
        together = ops.concat([ops.gather(past, inputs["beam_idx"], _integers(0)), heads], 2)
        sinks.append(ops.assign(together, variable))
        remembered.append(together)
    mask = ops.convert(ops.unsqueeze(inputs["attention_mask"], _integers([1, 2])), "f32")
    context = ops.scaled_dot_product_attention(heads, *remembered, mask, causal=False)
    flat = ops.transpose(context, _integers([0, 2, 1, 3]))
    flat = ops.reshape(flat, _integers([0, 0, HEAD]), special_zero=True)
    logits = ops.matmul(flat, ops.convert(table, "f32"), transpose_a=False, transpose_b=True)
    result = ops.result(logits)
    result.get_output_tensor(0).set_names({"logits"})
    return openvino.Model([result], sinks, list(inputs.values()), "tiny")


def _integers(values: Any) -> Any:
    return ops.constant(np.array(values, np.int64))


if __name__ == "__main__":
    main()
