"""Prompts have exactly the tokens that were asked for, counted by the tokenizer itself."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tests.conftest import TEXTS, save_tokenizer
from toolkit import bench
from toolkit.bench import vocabulary, workload
from toolkit.errors import UsageError
from toolkit.specs import LoadProfile, TraceRow


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """The way of GPT-2, Llama 3 and Qwen; so small that most words have several tokens."""
    folder = tmp_path_factory.mktemp("byte-level")
    save_tokenizer(folder, 320)
    return folder


@pytest.fixture(scope="module")
def metaspace(tmp_path_factory):
    """The way of Llama 2 and Mistral: spaces are characters of words, one stands before the first."""
    folder = tmp_path_factory.mktemp("metaspace")
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    made.decoder = decoders.Metaspace()
    texts = [*TEXTS, " ".join(vocabulary.WORDS), "a b c d e f g h i j k l m n o p q r s t u v w x y z"] * 4
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>"], show_progress=False))
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    """A token for each word, as the scripted server counts."""
    folder = tmp_path_factory.mktemp("words")
    known = [*vocabulary.WORDS, *"abcdefghijklmnopqrstuvwxyz"]
    made = Tokenizer(
        models.WordLevel({word: number for number, word in enumerate(dict.fromkeys(known))}, unk_token="the")
    )
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "words"])
def test_every_length_is_met_exactly(request, kind):
    folder = request.getfixturevalue(kind)
    tokenizer, made = Tokenizer.from_file(str(folder / "tokenizer.json")), vocabulary.read(folder)

    @given(st.integers(1, 400), st.integers(0, 10**9), st.integers(0, 300))
    def check(tokens, seed, before):
        text = made.made(seed=seed, index=3, tokens=tokens)
        assert len(tokenizer.encode(text, add_special_tokens=False).ids) == tokens
        if before:
            start = made.made(seed=seed, index=4, tokens=before)
            rest = made.made(seed=seed, index=5, tokens=tokens, is_continued=True)
            assert len(tokenizer.encode(f"{start} {rest}", add_special_tokens=False).ids) == before + tokens

    check()


@pytest.mark.parametrize(
    "changes",
    [
        {"isl": 77},
        {"isl_lengths": "uniform:20,200"},
        {"isl": 90, "shared_prefix": 0.4},
        {"trace": (TraceRow(due_s=None, input_tokens=1100, output_tokens=4, blocks=(7, 8, 9)),)},
    ],
)
def test_requests_have_the_tokens_that_they_ask_for(byte_level, changes):
    tokenizer = Tokenizer.from_file(str(byte_level / "tokenizer.json"))
    plan = workload.Plan(LoadProfile(url="grpc://x", requests=30, **changes), vocabulary.read(byte_level))
    made = [plan[index] for index in range(30)]
    assert [len(tokenizer.encode(wish.prompt, add_special_tokens=False).ids) for wish in made] == [
        wish.input_tokens for wish in made
    ]


@pytest.mark.parametrize("scheme", ["grpc", "http", "openai+http"])
def test_the_servers_own_count_is_what_was_asked_for_with_all_that_it_adds(serve, words, scheme):
    served = serve(added_tokens=9)
    changes = {"model": ""} if scheme == "openai+http" else {}
    found = bench.run(LoadProfile(url=served.url(scheme), requests=8, isl=40, osl=2, tokenizer=str(words), **changes))
    assert {record.input_tokens for record in found.records} == {40}


def test_a_length_that_the_server_exceeds_by_itself_is_refused(serve, words):
    profile = LoadProfile(url=serve(added_tokens=40).grpc, requests=8, isl=40, osl=2, tokenizer=str(words))
    with pytest.raises(UsageError, match=r"adds 40 tokens to every prompt: none can have 40\.") as caught:
        bench.run(profile)
    assert caught.value.hint == "Give --isl 41 or more."


def test_the_tokenizer_of_another_model_is_noticed(serve, byte_level):
    profile = LoadProfile(url=serve(added_tokens=0).grpc, requests=8, isl=40, osl=2, tokenizer=str(byte_level))
    with pytest.raises(UsageError, match=r"The server counts \d+ and \d+ tokens where .* counts 16 and 64\."):
        bench.run(profile)


def test_a_tokenizer_that_joins_words_is_refused():
    with pytest.raises(UsageError, match="with pairs: its tokens of words do not add up"):
        vocabulary.counted(lambda text: -(-len(text.split()) // 2), name="pairs")


@pytest.mark.parametrize("content", ["", "{}", "[]", json.dumps({"model": {"type": "Unknown"}})])
def test_what_is_no_tokenizer_is_refused_by_name(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(UsageError, match=f"The tokenizer {tmp_path}/tokenizer.json cannot be read"):
        vocabulary.read(tmp_path)
