"""The LLM API's repository: golden files, Triton's own schema, and the engine flow's contract tensor for tensor."""

import dataclasses
import os
from pathlib import Path

import pytest
import yaml
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from toolkit import releases, repository
from toolkit.errors import PlanInfeasible, UnknownName
from toolkit.specs import RepositorySpec

GOLDEN = Path(__file__).parents[1] / "golden" / "llmapi"
SPEC = RepositorySpec(
    layout="llmapi",
    engine_backend="llmapi",
    tokenizer_dir="../tokenizer",
    engine_dir="../checkpoint",
    max_batch_size=32,
    max_seq_len=2048,
    max_num_tokens=2048,
    llm_api={
        "tensor_parallel_size": 2,
        "max_batch_size": 32,
        "max_num_tokens": 2048,
        "max_seq_len": 2048,
        "enable_chunked_prefill": True,
        "kv_cache_config.enable_block_reuse": True,
        "kv_cache_config.free_gpu_memory_fraction": 0.9,
        "scheduler_config.capacity_scheduler_policy": "GUARANTEED_NO_EVICT",
        "lora_config.lora_dir": ["lora/sql", "lora/a b"],
    },
)


def config_of(spec, model="ensemble"):
    text = repository.render(spec)[f"{model}/config.pbtxt"]
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_config_and_the_yaml_equal_the_golden_files():
    files = {path: text for path, text in repository.render(SPEC).items() if not path.endswith(".py")}
    if os.environ.get("UPDATE_GOLDEN"):
        repository.write(files, GOLDEN, is_forced=True)
        (GOLDEN / ".trtk-repository.json").unlink()

    golden = {str(path.relative_to(GOLDEN)): path.read_text() for path in GOLDEN.rglob("*") if path.is_file()}
    assert files == golden


def test_a_rendered_repository_has_no_problems(tmp_path):
    around = repository.Surroundings(api=releases.llm_api_of(releases.get("26.07")))
    repository.write(repository.render(SPEC), tmp_path / "repository")

    missing = f"ensemble: model is ../checkpoint ({tmp_path}/checkpoint here), which is not there."
    assert repository.check(tmp_path / "repository", around) == [missing]
    (tmp_path / "checkpoint").mkdir()
    assert repository.check(tmp_path / "repository", around) == []


def test_a_model_by_another_name_says_so_in_its_configuration_and_its_folder():
    files = repository.render(dataclasses.replace(SPEC, model_name="tensorrt_llm"))

    assert {path.split("/")[0] for path in files} == {"tensorrt_llm"}
    assert config_of(dataclasses.replace(SPEC, model_name="tensorrt_llm"), "tensorrt_llm").name == "tensorrt_llm"


def test_several_instances_are_refused_with_the_way_to_have_them():
    with pytest.raises(PlanInfeasible, match="would load the model 2 times"):
        repository.render(dataclasses.replace(SPEC, instances={"ensemble": 2}))
    with pytest.raises(UnknownName, match="no model of this repository with instances named 'tensorrt_llm'"):
        repository.render(dataclasses.replace(SPEC, instances={"tensorrt_llm": 2}))


def test_the_yaml_says_the_same_values_and_only_keys_that_the_release_has():
    document = yaml.safe_load(repository.render(SPEC)["ensemble/1/model.yaml"])

    assert document == {
        "model": "../checkpoint",
        "backend": "pytorch",
        "enable_iter_perf_stats": True,
        "tensor_parallel_size": 2,
        "max_batch_size": 32,
        "max_num_tokens": 2048,
        "max_seq_len": 2048,
        "enable_chunked_prefill": True,
        "kv_cache_config": {"enable_block_reuse": True, "free_gpu_memory_fraction": 0.9},
        "scheduler_config": {"capacity_scheduler_policy": "GUARANTEED_NO_EVICT"},
        "lora_config": {"lora_dir": ["lora/sql", "lora/a b"]},
        "triton_config": {"decoupled": True, "max_batch_size": 32, "cancellation_check_period_ms": 100},
    }
    dotted = {
        f"{group}.{name}" if isinstance(value, dict) else group
        for group, value in document.items()
        for name in (value if isinstance(value, dict) else [group])
    }
    for tag in ("25.10", "25.12", "26.07"):
        assert dotted <= set(releases.llm_api_of(releases.get(tag)).keys)


def test_clients_find_the_same_model_with_the_same_tensors():
    engine = RepositorySpec(
        layout="inflight_batcher",
        engine_backend="tensorrtllm",
        tokenizer_dir="/t",
        engine_dir="/e",
        max_batch_size=32,
        max_seq_len=2048,
        max_num_tokens=2048,
    )
    before, after = config_of(engine), config_of(SPEC)

    assert (before.name, before.max_batch_size) == (after.name, after.max_batch_size) == ("ensemble", 32)
    assert list(before.input) == list(after.input)
    assert [*before.output] == [tensor for tensor in after.output if tensor.name != "finish_reason"]
    assert (after.backend, after.model_transaction_policy.decoupled) == ("python", True)


@pytest.mark.parametrize("name", ["model.py", "contract.py", "served.py"])
def test_the_served_python_stands_alone(name):
    assert "toolkit" not in repository.render(SPEC)[f"ensemble/1/{name}"]
