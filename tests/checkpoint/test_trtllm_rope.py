"""config.json's rotary_scaling makes TensorRT-LLM's builder compute what the model computes."""

import math

import pytest
import torch
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from toolkit import models
from toolkit.checkpoint.trtllm_rope import rotary_scaling

TRAINED = {"original_max_position_embeddings": 4096}
YARN = {
    "plain": {"factor": 4.0, **TRAINED},
    "attention_factor": {"factor": 4.0, "attention_factor": 1.5, **TRAINED},
    "mscale alone, which transformers ignores": {"factor": 4.0, "mscale": 0.5, **TRAINED},
    "both mscales": {"factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.3, **TRAINED},
}


def config_of(**settings):
    return transformers.LlamaConfig(
        architectures=["LlamaForCausalLM"], max_position_embeddings=32768, rope_parameters=settings
    )


def scaling_of(**settings):
    return rotary_scaling(models.family_of("LlamaForCausalLM").describe(config_of(**settings).to_dict()))


@pytest.mark.parametrize("settings", YARN.values(), ids=YARN.keys())
def test_the_builders_yarn_is_as_sharp_as_transformers(settings):
    """TensorRT-LLM's rule, typed out: the ratio of 0.1 m ln(factor) + 1 for mscale and for mscale_all_dim."""
    settings = {"rope_type": "yarn", "rope_theta": 10000.0, **settings}
    _, sharpness = ROPE_INIT_FUNCTIONS["yarn"](config_of(**settings), torch.device("cpu"))

    written = scaling_of(**settings)

    above, below = (0.1 * written[name] * math.log(written["factor"]) + 1 for name in ("mscale", "mscale_all_dim"))
    assert above / below == pytest.approx(sharpness, rel=1e-12)


def test_a_yarn_without_a_factor_gets_the_ratio_of_contexts():
    assert scaling_of(rope_type="yarn", rope_theta=10000.0, factor=None, **TRAINED)["factor"] == 8.0


def test_dynamic_scaling_is_left_out_for_it_changes_nothing_within_the_context():
    assert scaling_of(rope_type="dynamic", rope_theta=10000.0, factor=2.0) is None


def test_other_scalings_are_written_as_they_are():
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, **TRAINED}

    assert scaling_of(rope_theta=500000.0, **llama3) == llama3
    assert scaling_of(rope_theta=1e4, rope_type="linear", factor=2.0) == {"rope_type": "linear", "factor": 2.0}
    assert scaling_of(rope_theta=1e4, rope_type="default") is None
