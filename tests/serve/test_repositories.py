"""What `trtk repo` writes is what the real tritonserver loads and runs."""

import dataclasses
import json
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner

from toolkit import serve
from toolkit.cli import main

SETTINGS = [
    *("--kv-cache-tokens", "2048", "--max-queue-size", "5", "--max-queue-delay-us", "100"),
    *(
        "--instances",
        "preprocessing=2",
        "--set",
        "tensorrt_llm.num_threads=1",
        "--set",
        "tensorrt_llm.stream_interval=2",
        "--set",
        "tensorrt_llm.dynamic_quantization_group_size=0",
    ),
    *("--no-kv-cache-reuse", "--set", "tensorrt_llm_bls.max_requests_in_flight=3"),
]


def run(*words):
    result = CliRunner().invoke(main, [*map(str, words), "--json"])
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.server
@pytest.mark.engine
def test_a_repository_with_other_settings_is_loaded_and_answers(llama, spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run("build", llama[0], "--gpu", "cpu", "--quant", "fp16", "-o", "engines/tiny")
    made = run("repo", "engines/tiny", *SETTINGS)
    assert made["folder"] == "model_repository/tiny"
    assert run("repo", "--check", "model_repository/tiny")["is_right"]

    folder = tmp_path / "model_repository" / "tiny"
    asked = dataclasses.replace(spec, name="tiny", repository=str(folder), startup_timeout_s=240)
    endpoint = serve.start(dataclasses.replace(asked, probe_model="ensemble"))
    try:
        body = {"text_input": "Numbers such as 1, 22", "max_tokens": 4, "end_id": -1}
        answers = {
            name: httpx.post(f"{endpoint.http_url}/v2/models/{name}/generate", json=body, timeout=60).json()
            for name in ("ensemble", "tensorrt_llm_bls")
        }
        statistics = httpx.get(f"{endpoint.http_url}/v2/models/stats", timeout=60).json()["model_stats"]
    finally:
        serve.stop("tiny", timeout_s=0)
    assert answers["ensemble"]["text_output"] == answers["tensorrt_llm_bls"]["text_output"] != ""
    assert {one["name"] for one in statistics} == set(made["models"])
    assert "preprocessing_0_1" in Path(endpoint.log_path).read_text()  # the second instance
