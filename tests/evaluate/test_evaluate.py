"""What `evaluate` says of a checkpoint is what Hugging Face's own model says with the checkpoint's weights."""

import math
import random

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.conftest import save_model
from tests.convert.checkpoints import convert_model, hf_state
from toolkit import evaluate
from toolkit.errors import BuildError, UsageError
from toolkit.evaluate import TextSpec
from toolkit.specs import ModelSource, Sharding

WORDS = ["the", "quick", "brown", "fox", "jumps", "over", "lazy", "dogs", "while", "1", "22", "333", "add", "up", "to"]
ROWS, LENGTH = 3, 64


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A file of words in no order."""
    path = tmp_path_factory.mktemp("text") / "words.txt"
    path.write_text(" ".join(random.Random(0).choices(WORDS, k=600)), encoding="utf-8")
    return path


def evaluated(folder, checkpoint, text):
    source = ModelSource(name="tiny", path=str(folder), revision="local")
    return evaluate.run(checkpoint, source, TextSpec(path=str(text), rows=ROWS, length=LENGTH))


def token_ids(folder, text):
    from tokenizers import Tokenizer

    ids = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text.read_text(encoding="utf-8")).ids
    return torch.tensor(ids[: ROWS * LENGTH]).view(ROWS, LENGTH)


def figures(base, other, ids):
    """Perplexities, KL and agreement of two of Hugging Face's models, by the definitions."""
    with torch.inference_mode():
        ours, theirs = (model(ids).logits[:, :-1].double().log_softmax(-1) for model in (base, other))
    targets = ids[:, 1:, None]
    return {
        "ppl_base": math.exp(-float(ours.gather(-1, targets).mean())),
        "ppl": math.exp(-float(theirs.gather(-1, targets).mean())),
        "kl": float((ours.exp() * (ours - theirs)).sum(-1).mean()),
        "top1": float((ours.argmax(-1) == theirs.argmax(-1)).double().mean()),
    }


@pytest.mark.parametrize("recipe", ["fp16", "int4"])
def test_figures_equal_those_of_hugging_faces_model_with_the_checkpoints_weights(llama, text, tmp_path, recipe):
    folder, original = llama
    spec = convert_model(folder, tmp_path / "made", recipe)
    other = AutoModelForCausalLM.from_config(original.config).float().eval()
    other.load_state_dict(hf_state(tmp_path / "made", spec))

    found = evaluated(folder, tmp_path / "made", text)

    expected = figures(original, other, token_ids(folder, text))
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert found.tokens == ROWS * (LENGTH - 1)


def test_a_checkpoint_that_lost_nothing_has_no_divergence(llama, text, tmp_path):
    folder, _ = llama  # its weights are float16 already
    convert_model(folder, tmp_path / "made", "fp16")

    found = evaluated(folder, tmp_path / "made", text)

    assert (found.kl, found.top1, found.ppl_increase_pct) == (0.0, 1.0, 0.0)
    assert [layer.hidden for layer in found.layers] == [0.0, 0.0]
    assert {error for layer in found.layers for error in layer.groups.values()} == {0.0}


def test_a_group_is_charged_for_its_own_error_only(llama, text, tmp_path):
    folder, _ = llama
    convert_model(folder, tmp_path / "made", "int4_rtn", exclude=("transformer.layers.0.*", "*.attention.dense"))

    found = evaluated(folder, tmp_path / "made", text)

    assert [layer.hidden == 0 for layer in found.layers] == [True, False]
    exact = [[group for group, error in layer.groups.items() if error == 0] for layer in found.layers]
    assert exact == [["attention.qkv", "attention.dense", "mlp.fc", "mlp.proj"], ["attention.dense"]]
    assert set(found.layers[1].algos.values()) == {"W4A16_AWQ", None}


@pytest.mark.parametrize(
    ("recipe", "sharding"),
    [
        ("fp8", Sharding(tp=2)),
        ("int4_rtn", Sharding(tp=2)),
        ("int4_rtn", Sharding(pp=2)),
        ("int4_rtn", Sharding(tp=4, pp=2)),  # two KV heads: each is on two ranks
    ],
    ids=str,
)
def test_ranks_are_put_together_again(llama, text, tmp_path, recipe, sharding):
    folder, _ = llama
    options = {"group_size": 32} if recipe == "int4_rtn" else {}
    convert_model(folder, tmp_path / "whole", recipe, **options)
    convert_model(folder, tmp_path / "cut", recipe, sharding=sharding, **options)

    assert evaluated(folder, tmp_path / "cut", text) == evaluated(folder, tmp_path / "whole", text)


def test_the_bundled_text_is_long_enough_for_a_figure(llama, tmp_path):
    folder, _ = llama
    convert_model(folder, tmp_path / "made", "int4_rtn")

    found = evaluate.run(tmp_path / "made", ModelSource(name="tiny", path=str(folder), revision="local"))

    assert found.tokens > 2000
    assert 0 < found.kl < 1


def test_a_row_starts_with_the_token_that_the_tokenizer_puts_first(tmp_path, text):
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    from toolkit import models
    from toolkit.evaluate.text import token_rows

    save_model(tmp_path)
    path = str(tmp_path / "tokenizer.json")
    tokenizer = Tokenizer.from_file(path)
    plain = tokenizer.encode(text.read_text(encoding="utf-8")).ids
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.save(path)
    spec = models.read(ModelSource(name="tiny", path=str(tmp_path), revision="local"))

    rows = token_rows(TextSpec(path=str(text), rows=2, length=20), tmp_path, spec)

    assert rows.tolist() == [[1, *plain[:19]], [1, *plain[19:38]]]


def test_another_models_checkpoint_is_named_with_the_field(llama, text, tmp_path):
    folder, _ = llama
    save_model(tmp_path / "other", hidden_size=64)
    convert_model(tmp_path / "other", tmp_path / "made", "fp16")

    with pytest.raises(UsageError, match="of another model: its hidden_size is 64, MODEL's is 128"):
        evaluated(folder, tmp_path / "made", text)


def test_a_checkpoint_with_wider_layers_than_its_config_says_is_named(llama, text, tmp_path):
    folder, _ = llama
    save_model(tmp_path / "other", intermediate_size=192)
    convert_model(tmp_path / "other", tmp_path / "made", "fp16")

    with pytest.raises(BuildError, match=r"transformer.layers.0.mlp.fc in .* has shape \(192, 128\), .* \(256, 128\)"):
        evaluated(folder, tmp_path / "made", text)


def test_a_missing_rank_is_named(llama, text, tmp_path):
    folder, _ = llama
    convert_model(folder, tmp_path / "made", "fp16", sharding=Sharding(tp=2))
    (tmp_path / "made" / "rank1.safetensors").unlink()

    with pytest.raises(BuildError, match=r"lacks rank1.safetensors"):
        evaluated(folder, tmp_path / "made", text)


def test_a_truncated_rank_is_named(llama, text, tmp_path):
    folder, _ = llama
    convert_model(folder, tmp_path / "made", "fp16")
    path = tmp_path / "made" / "rank0.safetensors"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(BuildError, match=r"rank0.safetensors is truncated"):
        evaluated(folder, tmp_path / "made", text)


def test_a_missing_tensor_is_named(llama, text, tmp_path):
    from safetensors.torch import load_file, save_file

    folder, _ = llama
    convert_model(folder, tmp_path / "made", "int4_rtn")
    path = tmp_path / "made" / "rank0.safetensors"
    tensors = load_file(path)
    del tensors["transformer.layers.1.mlp.proj.weights_scaling_factor"]
    save_file(tensors, path)

    with pytest.raises(BuildError, match=r"layers.1.mlp.proj holds torch.int8 weights, but has no scale"):
        evaluated(folder, tmp_path / "made", text)


def test_weights_that_become_nan_are_named_with_the_layer(llama, text, tmp_path):
    from safetensors.torch import load_file, save_file

    folder, _ = llama
    convert_model(folder, tmp_path / "made", "int4_rtn")
    path = tmp_path / "made" / "rank0.safetensors"
    tensors = load_file(path)
    tensors["transformer.layers.1.mlp.proj.weights_scaling_factor"][3, 0] = math.nan
    save_file(tensors, path)

    with pytest.raises(BuildError, match="become NaN or Inf in layer 1"):
        evaluated(folder, tmp_path / "made", text)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "holds no config.json, so it is no checkpoint"),
        ({"config.json": "{}"}, "names no architecture, so it is no checkpoint"),
        ({"config.json": "{"}, "is not JSON"),
        ({"config.json": '{"pretrained_config": {}}'}, "a compiled TensorRT engine"),
    ],
)
def test_what_is_no_checkpoint_is_said_so(llama, text, tmp_path, files, message):
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")

    with pytest.raises(UsageError, match=message):
        evaluated(llama[0], tmp_path, text)


def test_a_text_that_is_too_short_is_refused_with_both_numbers(llama, tmp_path):
    folder, _ = llama
    convert_model(folder, tmp_path / "made", "fp16")
    (tmp_path / "short.txt").write_text("the quick brown fox " * 4, encoding="utf-8")

    with pytest.raises(UsageError, match=r"short.txt has \d+ tokens; 3 rows of 64 need 192"):
        evaluated(folder, tmp_path / "made", tmp_path / "short.txt")
