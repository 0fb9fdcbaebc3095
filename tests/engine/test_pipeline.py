"""What ContinuousBatchingPipeline serves is what torch computes: paged attention, windows, pieces of prefill."""

import pytest
import torch

from tests.conftest import save_model
from tests.convert.checkpoints import convert_model
from tests.engine.engines import greedy_tokens
from tests.engine.test_families import with_stored_norms

pytestmark = pytest.mark.engine
WINDOW = 16
LENGTHS = (90, 7, 33)  # of the prompts: most are longer than the window
COUNT = 20
SERVED = {
    "llama": {},
    "mistral, window": {"architecture": "MistralForCausalLM", "sliding_window": WINDOW},
    "qwen2, window from layer 1 on": {
        "architecture": "Qwen2ForCausalLM",
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
    },
    "qwen3": {"architecture": "Qwen3ForCausalLM"},
    "gemma3, windows in two of three layers": {
        "architecture": "Gemma3ForCausalLM",
        "num_hidden_layers": 3,
        "sliding_window_pattern": 3,
    },
    "phi3, window, half rotated": {
        "architecture": "Phi3ForCausalLM",
        "sliding_window": WINDOW,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.5},
    },
    "mixtral": {"architecture": "MixtralForCausalLM"},
    "qwen2-moe": {"architecture": "Qwen2MoeForCausalLM"},
}


def sharpened(model, folder):
    """Save a model with larger weights, in float16: random ones leave tokens too close to each other to choose."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" not in name:
                weight.copy_((3 * weight).half())
    model.half().save_pretrained(folder)
    return with_stored_norms(model.float())


@pytest.mark.parametrize("changes", SERVED.values(), ids=SERVED.keys())
def test_greedy_tokens_are_torchs(tmp_path, changes):
    original = sharpened(save_model(tmp_path / "hf", **changes), tmp_path / "hf")
    convert_model(tmp_path / "hf", tmp_path / "out", "fp16")
    prompts = [
        torch.randint(3, 320, (1, length), generator=torch.Generator().manual_seed(length)) for length in LENGTHS
    ]

    found = greedy_tokens(tmp_path / "out", tmp_path / "ir", prompts, count=COUNT)

    settings = {"max_new_tokens": COUNT, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    with torch.inference_mode():
        expected = [original.generate(ids, **settings)[0, ids.shape[1] :].tolist() for ids in prompts]
    assert found == expected
