"""Our decoder computes what Hugging Face's own model computes."""

from pathlib import Path

import pytest
import torch

from tests.conftest import save_llama
from toolkit import models
from toolkit.checkpoint.shards import Shards
from toolkit.checkpoint.source import SourceModel
from toolkit.forward.decoder import Decoder, KVCache
from toolkit.specs import ModelSource

LLAMA3_SCALING = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
VARIANTS = {
    "grouped-query": {},
    "multi-head": {"num_key_value_heads": 4},
    "multi-query": {"num_key_value_heads": 1},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "own head_dim": {"head_dim": 48},
    "llama3 rope": {"rope_parameters": LLAMA3_SCALING},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0}},
    "mistral": {"architecture": "MistralForCausalLM", "sliding_window": None},
    "sliding window": {"architecture": "MistralForCausalLM", "sliding_window": 16},
}


def our_logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    source = ModelSource(name="tiny", path=str(folder), revision="local")
    spec = models.read(source)
    source = SourceModel(Shards(folder), models.family_of(spec.architecture).tensors, spec)
    decoder = Decoder(spec, max_length=ids.shape[1])
    hidden = source.embed(ids)
    for index in range(spec.num_layers):
        hidden = decoder.layer(source.layer(index), hidden)
    return decoder.logits(hidden, source.final_norm(), source.head().float())


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_logits_equal_hugging_faces(tmp_path, changes):
    original = save_llama(tmp_path, **changes)
    ids = torch.randint(0, 320, (2, 80), generator=torch.Generator().manual_seed(0))

    with torch.inference_mode():
        torch.testing.assert_close(our_logits(tmp_path, ids), original(ids).logits, atol=1e-4, rtol=1e-4)


def test_a_cache_gives_what_the_whole_prompt_gives(llama):
    folder, _ = llama
    spec = models.read(ModelSource(name="tiny", path=str(folder), revision="local"))
    layer = SourceModel(Shards(folder), models.family_of(spec.architecture).tensors, spec).layer(0)
    hidden = torch.randn(2, 12, spec.hidden_size, generator=torch.Generator().manual_seed(0))
    decoder, cache = Decoder(spec, max_length=12), KVCache()

    whole = decoder.layer(layer, hidden)
    pieces = [
        decoder.layer(layer, hidden[:, start:end], cache=cache, start=start) for start, end in ((0, 5), (5, 6), (6, 12))
    ]

    torch.testing.assert_close(torch.cat(pieces, dim=1), whole, atol=1e-5, rtol=1e-5)
