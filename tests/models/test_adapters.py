"""LoRA adapters: what is read of them, what is refused, and that what is copied is what was planned for."""

import hashlib
import json

import pytest

from toolkit.errors import UsageError
from toolkit.models import adapters

PLAIN = {"peft_type": "LORA", "r": 8, "target_modules": ["v_proj", "q_proj"], "lora_alpha": 16}


def saved(folder, config=PLAIN, weights=b"weights"):
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if weights is not None:
        (folder / "adapter_model.safetensors").write_bytes(weights)
    return folder


def test_an_adapter_is_its_name_rank_linears_and_bytes(tmp_path):
    (found,) = adapters.read_all([saved(tmp_path / "my adapter (v2)")])

    assert found.name == "my-adapter-v2-"
    assert (found.rank, found.modules) == (8, ("q_proj", "v_proj"))
    assert found.sha256 == hashlib.sha256(b"weights").hexdigest()
    adapters.copy([found], tmp_path / "lora")
    files = {path.name for path in (tmp_path / "lora" / found.name).iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors"}


WRONG = {
    "nothing": ("[]", "is no JSON object."),
    "broken": ("{", "is not JSON: "),
    "another method": ({**PLAIN, "peft_type": "IA3"}, "describes IA3, not LoRA."),
    "dora": ({**PLAIN, "use_dora": True}, "describes DoRA, not LoRA."),
    "no rank": ({**PLAIN, "r": None}, "needs a rank `r` and a list of `target_modules`; it has None"),
    "rank 0": ({**PLAIN, "r": 0}, "needs a rank `r`"),
    "a pattern": ({**PLAIN, "target_modules": "all-linear"}, "needs a rank `r` and a list of `target_modules`"),
}


@pytest.mark.parametrize(("config", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_is_no_plain_lora_is_refused(tmp_path, config, message):
    with pytest.raises(UsageError) as caught:
        adapters.read(saved(tmp_path / "a", config))
    assert message in str(caught.value)


def test_pickled_weights_are_not_read(tmp_path):
    folder = saved(tmp_path / "a", weights=None)
    (folder / "adapter_model.bin").write_bytes(b"pickle")

    with pytest.raises(UsageError, match=r"has no adapter_model\.safetensors\.") as caught:
        adapters.read(folder)
    assert "pickled weights can run code" in caught.value.hint


def test_two_adapters_of_one_name_are_refused(tmp_path):
    with pytest.raises(UsageError, match="Two adapters are called a"):
        adapters.read_all([saved(tmp_path / "x" / "a"), saved(tmp_path / "y" / "a")])


def test_an_adapter_that_changed_since_the_plan_is_refused(tmp_path):
    found = adapters.read(saved(tmp_path / "a"))
    (tmp_path / "a/adapter_model.safetensors").write_bytes(b"others")

    with pytest.raises(UsageError, match="changed since the plan was made"):
        adapters.copy([found], tmp_path / "lora")
