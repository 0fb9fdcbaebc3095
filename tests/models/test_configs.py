"""A shape is read from config.json alone, wherever it is; of a hub's model nothing else is fetched."""

import json
import os
import subprocess
import sys

import pytest

from tests.models.hub_stand_in import Hub, Repository, start
from tests.models.test_hub import COMMIT, environment_of
from toolkit import models
from toolkit.errors import PlanInfeasible, UsageError
from toolkit.models import configs, demo

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 320,
}
PROGRAM = """
import sys
from toolkit.models import configs
print(configs.read(sys.argv[1]).num_layers)
"""


def test_the_demo_models_shape_is_that_of_its_weights():
    folder = demo.cache_dir() / "models" / f"demo-v{demo.LAYOUT_VERSION}"
    if not (folder / "config.json").is_file():
        pytest.skip("the demo model has not been fetched here")

    assert configs.read("demo") == models.read(models.locate("demo"))


def test_a_file_of_any_name_and_a_folder_are_read(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "mine.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": 7}))

    assert configs.read(str(tmp_path)).num_layers == 2
    assert configs.read(str(tmp_path / "mine.json")).num_layers == 7


@pytest.mark.parametrize("name", ["/nowhere/config.json", "./nothing", "model.json", "one"])
def test_what_is_neither_a_file_nor_a_hub_id_is_refused(name):
    with pytest.raises(UsageError, match="is no hub id either"):
        configs.read(name)


def test_a_name_that_no_hub_takes_is_refused():
    with pytest.raises(UsageError, match="'an org/model' is no hub id"):
        configs.read("an org/model")


def test_a_hub_that_does_not_answer_is_asked_once(tmp_path):
    silent = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "org/model"],
        env={**os.environ, **silent, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert "The hub at http://127.0.0.1:9 did not answer for org/model" in done.stderr
    assert "Retrying" not in done.stderr


def test_a_folder_without_a_config_and_an_unknown_architecture_are_sentences(tmp_path):
    with pytest.raises(UsageError, match=r"holds no config\.json"):
        configs.read(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "architectures": ["SomethingElse"]}))
    with pytest.raises(PlanInfeasible, match="trtk does not convert SomethingElse yet"):
        configs.read(str(tmp_path))


def test_of_a_hubs_model_the_config_alone_is_fetched_once(tmp_path):
    hub = Hub(
        {"org/model": Repository(COMMIT, {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": b"w"})}
    )
    server = start(hub)

    def read(**variables):
        environment = environment_of(hub, tmp_path / "hf", **variables)
        command = [sys.executable, "-c", PROGRAM, "org/model"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout

    try:
        assert read() == "2\n"
        assert hub.fetched() == {"config.json"}
        hub.log.clear()
        assert read(HF_HUB_OFFLINE="1") == "2\n"
        assert hub.log == []
    finally:
        server.shutdown()
        server.server_close()
