"""What is served computes what the checkpoint says: perplexity and greedy tokens against torch on the real model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.convert.checkpoints import hf_state
from tests.engine.test_openvino_graph import rounded_to_int8
from toolkit import models
from toolkit.specs import ModelSource

pytestmark = [pytest.mark.slow, pytest.mark.engine]
TEXT = Path(__file__).parents[2] / "LICENSE"
LENGTH, ROWS = 256, 3
#: CPUs with VNNI or AMX round activations to int8 unless they are told not to.
UNROUNDED = {"DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}
PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a",
    "def add(a, b):\n    return",
    "The three primary colors are",
    "To make a cup of tea, first",
    "In 1969, humans first",
    "The opposite of hot is",
    "Water boils at a temperature of",
    "My favorite season is",
    "The largest planet in our solar system is",
]


@pytest.fixture(scope="module")
def original(place, built):
    """Hugging Face's own model of the demo weights, and the tokenizer."""
    built("int4")  # fetches the weights
    from tokenizers import Tokenizer
    from transformers import LlamaForCausalLM

    folder = Path(place[1]["TRTK_CACHE"]) / "models" / "demo-v1"
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, Tokenizer.from_file(str(folder / "tokenizer.json"))


def perplexity(logits, ids):
    chances = torch.log_softmax(logits[:, :-1].double(), -1).gather(2, ids[:, 1:, None])
    return float((-chances.mean()).exp())


def engine_logits(engine, ids, **more):
    """Run the engine's own IR with the properties that it is served with, and MORE."""
    import openvino

    properties = json.loads((engine / "engine/runtime.json").read_text()) | more
    model = openvino.Core().compile_model(str(engine / "engine/openvino_model.xml"), "CPU", properties)
    rows = []
    for row in ids:
        inputs = {
            "input_ids": row[None].numpy(),
            "attention_mask": np.ones((1, len(row)), dtype=np.int64),
            "position_ids": np.arange(len(row))[None],
            "beam_idx": np.zeros(1, dtype=np.int32),
        }
        rows.append(torch.tensor(model.create_infer_request().infer(inputs)["logits"].copy()))
    return torch.cat(rows)


@pytest.mark.parametrize("quant", ["int4", "int8"])
def test_perplexity_of_the_engine_is_that_of_the_dequantized_checkpoint(built, original, quant):
    model, tokenizer = original
    engine, _ = built(quant)
    ids = torch.tensor(tokenizer.encode(TEXT.read_text()).ids[: ROWS * LENGTH]).view(ROWS, LENGTH)
    spec = models.read(ModelSource(name="demo", path=model.name_or_path, revision="local"))
    state = hf_state(engine / "checkpoint", spec)
    if quant == "int8":
        state = {name: rounded_to_int8(t) if "_proj.weight" in name else t for name, t in state.items()}
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        model.load_state_dict(state)
        expected = perplexity(model(ids).logits, ids)
        model.load_state_dict(saved)
        unquantized = perplexity(model(ids).logits, ids)

    found = perplexity(engine_logits(engine, ids), ids)

    assert found == pytest.approx(expected, rel=0.01)
    assert expected != pytest.approx(unquantized, rel=1e-4)  # the quantization is really there


def test_no_activation_is_rounded_on_any_cpu(built, original):
    _, tokenizer = original
    engine, _ = built("int4")
    ids = torch.tensor([tokenizer.encode(TEXT.read_text()).ids[:LENGTH]])

    found = engine_logits(engine, ids)

    assert torch.equal(found, engine_logits(engine, ids, INFERENCE_PRECISION_HINT="f32", **UNROUNDED))


def test_greedy_tokens_of_fp16_agree_with_torch(built, original):
    import openvino
    import openvino_genai

    model, tokenizer = original
    engine, _ = built("fp16")
    properties = json.loads((engine / "engine/runtime.json").read_text())
    scheduler = openvino_genai.SchedulerConfig()
    scheduler.cache_size = 1
    pipeline = openvino_genai.ContinuousBatchingPipeline(str(engine / "engine"), scheduler, "CPU", properties)
    config = openvino_genai.GenerationConfig()
    config.max_new_tokens, config.ignore_eos = 20, True
    agreeing = 0
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer.encode(prompt).ids])
        with torch.inference_mode():
            expected = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=20, min_new_tokens=20, do_sample=False
            )[0, ids.shape[1] :].tolist()
        found = pipeline.generate([openvino.Tensor(ids.numpy())], [config])[0].m_generation_ids[0]
        agreeing += list(found) == expected

    assert agreeing >= 9
