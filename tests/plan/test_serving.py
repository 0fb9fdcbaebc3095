"""What a plan says about serving: instances, queues, and windows that repeat over the layers."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.plan import serving
from toolkit.specs import Limits, ModelSpec

MODEL = ModelSpec(
    family="llama",
    architecture="LlamaForCausalLM",
    vocab_size=320,
    hidden_size=128,
    num_layers=26,
    num_heads=4,
    num_kv_heads=2,
    head_dim=32,
    intermediate_size=256,
    activation="silu",
    norm_eps=1e-5,
    rope_theta=10000.0,
    max_position_embeddings=4096,
)


def limits(batch):
    return Limits(max_batch_size=batch, max_seq_len=1024, max_num_tokens=1024)


@pytest.mark.parametrize(
    ("window", "full", "expected"),
    [
        (None, None, ""),
        (4096, None, ""),  # never reached
        (512, None, "512"),
        (512, (5, 11, 17, 23), "512,512,512,512,512,1024"),
        (512, tuple(range(1, 26, 2)), "512,1024"),
    ],
)
def test_windows_are_the_shortest_list_that_repeats(window, full, expected):
    model = dataclasses.replace(MODEL, sliding_window=window, full_attention_layers=full)

    assert serving.windows(model, 1024) == expected


@given(st.sets(st.integers(0, 25)), st.integers(1, 2000))
def test_every_layer_gets_its_own_window_back(full, window):
    model = dataclasses.replace(MODEL, sliding_window=window, full_attention_layers=tuple(full))
    text = serving.windows(model, 1024)
    told = [int(one) for one in text.split(",")] if text else [1024]

    assert [told[layer % len(told)] for layer in range(26)] == [
        min(model.window_of(layer) or 1024, 1024) for layer in range(26)
    ]


def test_instances_follow_the_batch_and_whether_requests_overlap():
    of = serving.instances

    assert of(limits(64), is_cpu=True, is_streaming=True) == {}
    assert of(limits(64), is_cpu=False, is_streaming=True) == {
        "preprocessing": 5,
        "postprocessing": 5,
        "tensorrt_llm_bls": 5,
    }
    assert of(limits(64), is_cpu=False, is_streaming=False)["tensorrt_llm_bls"] == 64
    assert of(limits(2), is_cpu=False, is_streaming=True)["preprocessing"] == 2


@pytest.mark.parametrize(("batch", "size"), [(1, 256), (32, 256), (33, 264), (256, 2048)])
def test_queues_are_bounded_by_the_batch(batch, size):
    assert serving.queue_size(limits(batch)) == size
