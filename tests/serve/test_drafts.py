"""tensorrt_llm_bls with a draft model in a real Triton: the answer is the engine's own, in fewer steps of it."""

import dataclasses
from pathlib import Path

import httpx
import pytest

from tests.conftest import save_tokenizer
from toolkit import repository, serve
from toolkit.specs import RepositorySpec

STAND_IN = Path(__file__).parent / "drafting_stand_in.py"
SPEC = RepositorySpec(
    layout="inflight_batcher",
    engine_backend="tensorrtllm",
    tokenizer_dir="../tokenizer",
    engine_dir="/engine",
    draft_engine_dir="/draft",
    max_batch_size=4,
    max_seq_len=256,
    max_num_tokens=256,
)


@pytest.fixture
def url(tmp_path, spec):
    """The URL of a server on the repository of two engines, for which stand-ins answer."""
    files = repository.render(SPEC)
    for model in ("tensorrt_llm", "tensorrt_llm_draft"):
        config = f"{model}/config.pbtxt"
        files[config] = files[config].replace('backend: "tensorrtllm"', 'backend: "python"')
        files[f"{model}/1/model.py"] = STAND_IN.read_text()
    folder = tmp_path / "drafted" / "model_repository"
    (tmp_path / "drafted" / "tokenizer").mkdir(parents=True)
    save_tokenizer(tmp_path / "drafted" / "tokenizer", 320)
    repository.write(files, folder)
    asked = dataclasses.replace(spec, name="drafted", repository=str(folder), probe_model="", startup_timeout_s=240)
    endpoint = serve.start(asked)
    yield f"{endpoint.http_url}/v2/models/tensorrt_llm_bls/generate"
    serve.stop("drafted", timeout_s=0)


@pytest.mark.server
def test_a_draft_changes_the_steps_and_not_the_answer(url):
    def ask(**more):
        body = {"text_input": "Numbers such as 1, 22", "max_tokens": 21, "end_id": -1, "return_num_output_tokens": True}
        return httpx.post(url, json={**body, **more}, timeout=60)

    alone, drafted = ask().json(), ask(num_draft_tokens=5, use_draft_logits=True).json()
    assert alone["text_output"] == drafted["text_output"] != ""
    assert (alone["num_output_tokens"], drafted["num_output_tokens"]) == (1, 21)
    refused = ask(num_draft_tokens=5, stream=True)
    assert (refused.status_code, refused.json()["error"]) == (400, "stream does not go with num_draft_tokens.")
