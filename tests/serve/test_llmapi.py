"""The LLM API's repository in a real Triton: a stand-in for tensorrt_llm behind it, a plain client in front."""

import contextlib
import json
import queue
import shutil
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc
from tritonclient.utils import InferenceServerException

from toolkit import repository, serve
from toolkit.specs import RepositorySpec, ServeSpec

STAND_IN = Path(__file__).parent / "llm_api_stand_in" / "tensorrt_llm"
SPEC = RepositorySpec(
    layout="llmapi",
    engine_backend="llmapi",
    tokenizer_dir="../tokenizer",
    engine_dir="../checkpoint",
    max_batch_size=8,
    max_seq_len=512,
    max_num_tokens=512,
    max_queue_size=1,
    llm_api={
        "tensor_parallel_size": 1,
        "max_seq_len": 512,
        "kv_cache_config.enable_block_reuse": True,
        "lora_config.lora_dir": ["lora/a", "lora/b"],
    },
)


@pytest.fixture
def served(tmp_path, free_ports):
    """Return a client and the folder where the stand-in says what it was told."""
    folder = tmp_path / "engine" / "model_repository"
    checkpoint = tmp_path / "engine" / "checkpoint"
    checkpoint.mkdir(parents=True)
    (checkpoint / "chat_template.jinja").write_text("{% for each in messages %}{{ each.content }} {% endfor %}")
    repository.write(repository.render(SPEC), folder)
    library = Path(shutil.copytree(STAND_IN, folder / "ensemble" / "1" / "tensorrt_llm"))
    http, grpc_port, metrics = free_ports
    spec = ServeSpec(
        name="llmapi",
        repository=str(folder),
        backend="embedded",
        http_port=http,
        grpc_port=grpc_port,
        metrics_port=metrics,
        probe_model="ensemble",
        exit_timeout_s=2,
    )
    endpoint = serve.start(spec)
    client = grpc.InferenceServerClient(endpoint.grpc_url)
    library.with_name("metrics.txt").write_text(endpoint.metrics_url)
    library.with_name("grpc.txt").write_text(endpoint.grpc_url)
    yield client, library
    client.close()
    serve.stop("llmapi")


def tensors(**values):
    made = []
    for name, value in values.items():
        kinds = {bool: ("BOOL", bool), int: ("INT32", np.int32), float: ("FP32", np.float32)}
        kind, dtype = kinds.get(type(value), ("BYTES", np.object_))
        if name == "lora_task_id":
            kind, dtype = "UINT64", np.uint64
        array = np.array([[value.encode() if isinstance(value, str) else value]], dtype)
        tensor = grpc.InferInput(name, array.shape, kind)
        tensor.set_data_from_numpy(array)
        made.append(tensor)
    return made


class Stream:
    """The answers of one gRPC stream."""

    def __init__(self, client):
        self.client, self.answers = client, queue.Queue()
        client.start_stream(lambda result, error: self.answers.put(error or result))

    def ask(self, *outputs, **values):
        named = [grpc.InferRequestedOutput(name) for name in ("text_output", *outputs)]
        self.client.async_stream_infer("ensemble", tensors(**values), outputs=named, enable_empty_final_response=True)

    def whole(self):
        """Return the answers until the final one, which is empty."""
        found = []
        while True:
            answer = self.answers.get(timeout=20)
            if isinstance(answer, InferenceServerException):
                raise answer
            if answer.get_response().parameters["triton_final_response"].bool_param:
                return found
            found.append(answer)

    def close(self, **options):
        self.client.stop_stream(**options)


def texts(answers):
    return [answer.as_numpy("text_output").reshape(-1)[0].decode() for answer in answers]


def test_a_client_of_the_engine_flow_is_answered_as_before(served):
    client, library = served
    stream = Stream(client)

    stream.ask("num_output_tokens", text_input="a b c", max_tokens=5, stream=True, return_num_output_tokens=True)
    answers = stream.whole()
    assert texts(answers) == [" a", " b", " c", " a", " b"]
    assert [answer.as_numpy("num_output_tokens").item() for answer in answers] == [1, 2, 3, 4, 5]

    stream.ask("cum_log_probs", text_input="x y", max_tokens=3, exclude_input_in_output=False)
    (answer,) = stream.whole()
    assert texts([answer]) == ["x y x y x"]
    assert answer.as_numpy("cum_log_probs").tolist() == [[0.0]]

    arguments = json.loads((library / "arguments.json").read_text())
    assert arguments == {
        "model": str((library.parents[3] / "checkpoint").resolve()),
        "backend": "pytorch",
        "tensor_parallel_size": 1,
        "max_seq_len": 512,
        "kv_cache_config": {"enable_block_reuse": True},
        "enable_iter_perf_stats": True,
        "lora_config": {"lora_dir": [f"{arguments['model']}/lora/{name}" for name in "ab"]},
    }
    stream.close()


def test_messages_log_probabilities_and_several_answers_go_through_the_llm_api(served):
    client, library = served
    stream = Stream(client)

    stream.ask("finish_reason", text_input="", messages='[{"role": "user", "content": "a b"}]', max_tokens=3)
    (answer,) = stream.whole()
    assert (texts([answer]), answer.as_numpy("finish_reason").item()) == ([" a b a"], b"length")
    assert json.loads((library / "sampling.json").read_text())["add_special_tokens"] is False

    stream.ask("cum_log_probs", "output_log_probs", text_input="a", max_tokens=2, stream=True, return_log_probs=True)
    answers = stream.whole()
    assert [answer.as_numpy("output_log_probs").tolist() for answer in answers] == [[[[-0.5]]]] * 2
    assert [answer.as_numpy("cum_log_probs").item() for answer in answers] == [-0.5, -1.0]

    stream.ask("sequence_index", text_input="a", max_tokens=2, num_return_sequences=2, temperature=1.0)
    answers = stream.whole()
    assert [(answer.as_numpy("sequence_index").item(), *texts([answer])) for answer in answers] == [
        (0, " a a"),
        (1, " a a"),
    ]
    stream.close()


def test_the_llm_apis_statistics_are_metrics_under_nvidias_names(served):
    url = served[1].with_name("metrics.txt").read_text()
    stream = Stream(served[0])
    stream.ask(text_input="a b", max_tokens=3)
    stream.whole()
    stream.close()
    until = time.monotonic() + 20
    while 'general_type="iteration_counter"' not in (text := httpx.get(url).text) or "token_len_sum" not in text:
        assert time.monotonic() < until
        time.sleep(0.1)

    found = {}
    for line in text.splitlines():
        if line.startswith(("nv_trt_llm", "nv_llm")) and "_bucket" not in line:
            labels, _, value = line.partition("{")[2].partition("} ")
            names = dict(each.split("=") for each in labels.split(","))
            assert (names.pop("model"), names.pop("version")) == ('"ensemble"', '"1"')
            (label,) = names.values()
            found[line.partition("{")[0], label.strip('"')] = float(value)
    blocks = "nv_trt_llm_kv_cache_block_metrics"
    assert {key[1]: value for key, value in found.items() if key[0] == "nv_trt_llm_request_metrics"} == {
        "active": 4, "max": 64, "scheduled": 3, "context": 1, "waiting": 5
    }  # fmt: skip
    assert [found[blocks, name] for name in ("max", "free", "used", "tokens_per", "fraction")] == [80, 60, 20, 32, 0.25]
    assert found["nv_trt_llm_general_metrics", "iteration_counter"] == 7
    assert found["nv_llm_output_token_len_sum", "total_output_tokens"] >= 3


def test_sampling_means_what_it_means_to_an_engine(served):
    client, library = served
    stream = Stream(client)

    def told(**values):
        stream.ask(text_input="a", max_tokens=1, **values)
        stream.whole()
        return json.loads((library / "sampling.json").read_text())

    assert told() == {"max_tokens": 1, "top_k": 1}  # an engine without top_k takes the best token
    assert told(temperature=0.0, top_p=0.9) == {"max_tokens": 1, "top_k": 1}
    assert told(temperature=0.5, top_k=4) == {"max_tokens": 1, "top_k": 4, "temperature": 0.5}
    assert not (library / "adapter.json").exists()
    assert told(lora_task_id=2) == {"max_tokens": 1, "top_k": 1}
    path = str((library.parents[3] / "checkpoint/lora/b").resolve())
    assert json.loads((library / "adapter.json").read_text()) == {"lora_name": "b", "lora_int_id": 2, "lora_path": path}
    assert told(stop_words="END", min_tokens=1) == {"max_tokens": 1, "top_k": 1, "min_tokens": 1, "stop": ["END"]}
    stream.close()


WRONG = [
    ({"max_tokens": 0}, "max_tokens is 0; it must be 1 or more."),
    (
        {"max_tokens": 1, "beam_width": 4},
        "beam_width = 4 is not supported by the LLM API's repository; it can do 1.",
    ),
    ({"max_tokens": 1, "lora_task_id": 3}, "lora_task_id is 3; this model has 2 adapters, counted from 1."),
    ({"max_tokens": 1, "temperature": float("nan")}, "temperature is nan; it must be a number."),
    ({"max_tokens": 1, "top_k": -1}, "top_k is -1; it must be from 0 to 2.14748e+09."),
    ({"max_tokens": 1, "guided_decoding_guide_type": "json"}, "model.yaml names no guided_decoding_backend."),
    ({"max_tokens": 1, "messages": "[]"}, "text_input and messages are both given"),
    ({"max_tokens": 1, "return_context_logits": True}, "return_context_logits = True is not supported"),
    ({"max_tokens": 1, "num_return_sequences": 0}, "num_return_sequences is 0; it must be 1 or more."),
    ({"max_tokens": 1, "num_return_sequences": 9, "top_k": 4}, "num_return_sequences is 9; it may be 1 to 8."),
]


def test_what_the_llm_api_cannot_do_is_said_in_a_sentence(served):
    stream = Stream(served[0])
    for values, message in WRONG:
        stream.ask(text_input="a", **values)
        with pytest.raises(InferenceServerException) as caught:
            stream.whole()
        assert message in caught.value.message()
    stream.close()


def test_a_client_that_leaves_stops_the_work(served):
    client, library = served
    stream = Stream(client)
    stream.ask(text_input="a b", max_tokens=100_000, stream=True)
    stream.answers.get(timeout=20)

    stream.close(cancel_requests=True)

    until = time.monotonic() + 10
    while not (library / "aborted").exists():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_requests_beyond_the_batch_and_its_queue_are_refused_at_once(served):
    client, library = served
    full = Stream(client)
    for _ in range(9):
        full.ask(text_input="a b", max_tokens=100_000, stream=True)
    for _ in range(200):  # all nine are at it
        full.answers.get(timeout=20)
    another = Stream(grpc.InferenceServerClient(library.with_name("grpc.txt").read_text()))
    another.ask(text_input="a", max_tokens=1)
    with pytest.raises(InferenceServerException, match="Exceeds maximum queue size: 9 requests run and wait already"):
        another.whole()

    full.close(cancel_requests=True)
    until, found = time.monotonic() + 20, []
    while not found:
        assert time.monotonic() < until
        another.ask(text_input="a", max_tokens=1)
        with contextlib.suppress(InferenceServerException):
            found = another.whole()
    another.close()
    another.client.close()
    assert (library / "aborted").exists()
