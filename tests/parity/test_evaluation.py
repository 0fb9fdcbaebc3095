"""What evaluation says of ModelOpt's exports is what ModelOpt's own simulation of the same numbers says."""

import math
import random

import pytest
import torch

from tests.parity import modelopt_exports as peer
from toolkit import evaluate
from toolkit.evaluate import TextSpec
from toolkit.specs import ModelSource

ROWS, LENGTH = 2, 64
#: Formats that round activations, and one that does not. ModelOpt simulates nvfp4's inputs on CUDA alone.
RECIPES = ["fp8", "fp8_rowwise", "int8_sq", "w4a8_awq", "int4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("llama")
    peer.save_family(made, "llama")
    return made


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "words.txt"
    words = "the quick brown fox jumps over lazy dogs 1 22 333".split()  # noqa: SIM905
    path.write_text(" ".join(random.Random(0).choices(words, k=600)), encoding="utf-8")
    return path


def with_shared_scales(model, recipe):
    """Return the model with scales and factors shared where the export shares them: it simulates its own otherwise."""
    from modelopt.torch.export.quant_utils import preprocess_linear_fusion

    for layer in model.model.layers if recipe != "fp8_rowwise" else ():
        attention, mlp = layer.self_attn, layer.mlp
        preprocess_linear_fusion([attention.q_proj, attention.k_proj, attention.v_proj])
        preprocess_linear_fusion([mlp.gate_proj, mlp.up_proj])
    return model


def log_probabilities(model, folder, text):
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text.read_text(encoding="utf-8")).ids
    ids = torch.tensor(ids[: ROWS * LENGTH]).view(ROWS, LENGTH)
    with torch.no_grad():
        return ids[:, 1:, None], torch.cat([model(row[None]).logits[:, :-1].double().log_softmax(-1) for row in ids])


@pytest.mark.parametrize("recipe", RECIPES)
def test_activation_rounding_is_emulated_as_modelopt_simulates_it(folder, text, tmp_path, recipe):
    targets, ours = log_probabilities(peer.quantized(folder, "llama", "fp16"), folder, text)
    simulated = with_shared_scales(peer.quantized(folder, "llama", recipe), recipe)
    _, theirs = log_probabilities(simulated, folder, text)
    peer.export_trtllm(simulated, "llama", tmp_path, tp=1)

    source = ModelSource(name="tiny", path=str(folder), revision="local")
    found = evaluate.run(tmp_path, source, TextSpec(path=str(text), rows=ROWS, length=LENGTH))

    kl = float((ours.exp() * (ours - theirs)).sum(-1).mean())
    assert found.kl == pytest.approx(kl, rel=0.02)
    assert found.ppl == pytest.approx(math.exp(-float(theirs.gather(-1, targets).mean())), rel=1e-3)
    assert found.top1 == pytest.approx(float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()), abs=0.02)
