"""What stock clients of Triton and TensorRT-LLM send, sent to the real engine: right answers, or sentences."""

import gzip
import json
import queue
import struct
import time

import httpx
import numpy as np
import pytest
import tritonclient.grpc as grpc
import tritonclient.http as http
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.e2e.conftest import chat

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.engine]
MODELS = ["ensemble", "tensorrt_llm_bls"]
PROMPT = "The capital of France is"
#: Every optional input of the ensemble, each asking for something where the engine can do it and for nothing where not.
EVERY_OPTION = {
    "decoder_text_input": b"", "num_return_sequences": 1, "bad_words": b"Berlin", "stop_words": b"\n",
    "exclude_input_in_output": True, "end_id": 2, "pad_id": 2, "top_k": 1, "top_p": 0.5, "temperature": 0.5,
    "length_penalty": 1.0, "repetition_penalty": 1.05, "min_tokens": 1, "presence_penalty": 0.1,
    "frequency_penalty": 0.1, "seed": 7, "return_log_probs": True, "return_context_logits": False,
    "return_generation_logits": False, "return_perf_metrics": True, "return_num_input_tokens": True,
    "return_num_output_tokens": True, "stream": False, "beam_width": 1,
    "prompt_embedding_table": np.zeros((1, 1, 1), np.float16), "prompt_table_extra_id": 0, "prompt_vocab_size": 0,
    "embedding_bias_words": b"", "embedding_bias_weights": 0.0, "lora_task_id": 0,
    "lora_weights": np.zeros((1, 1, 1), np.float16), "lora_config": np.zeros((1, 1, 3), np.int32),
    "guided_decoding_guide_type": b"", "guided_decoding_guide": b"", "messages": b"",
}  # fmt: skip
#: What the Python model has besides, as tensors that carry nothing.
EVERY_OPTION_OF_BLS = {
    "image_input": np.zeros((1, 0, 3, 1, 1), np.float16), "image_bytes_input": np.zeros((1, 0, 1, 1, 1), np.uint8),
    "image_url_input": b"", "video_bytes_input": np.zeros((1, 0, 1, 1, 1), np.uint8), "num_draft_tokens": 0,
    "use_draft_logits": False,
}  # fmt: skip
KINDS = {"BYTES": np.object_, "BOOL": np.bool_, "INT32": np.int32, "UINT64": np.uint64, "FP32": np.float32}


@pytest.fixture(scope="module")
def client(served):
    with grpc.InferenceServerClient(served["grpc_url"]) as made:
        yield made


def tensors(client, model, values):
    """Return inputs in the types that the server itself says they have."""
    kinds = {tensor.name: tensor.datatype for tensor in client.get_model_metadata(model).inputs}
    made = []
    for name, value in values.items():
        array = value if isinstance(value, np.ndarray) else np.array([[value]], KINDS[kinds[name]])
        made.append(grpc.InferInput(name, array.shape, kinds[name]))
        made[-1].set_data_from_numpy(array)
    return made


def answers(client, model, values, outputs):
    """Ask over a stream; return the answers up to the final, empty one."""
    arrived = queue.Queue()
    client.start_stream(lambda result, error: arrived.put(error or result))
    client.async_stream_infer(
        model,
        tensors(client, model, values),
        outputs=[grpc.InferRequestedOutput(name) for name in outputs],
        enable_empty_final_response=True,
    )
    found = []
    try:
        while True:
            answer = arrived.get(timeout=120)
            if isinstance(answer, InferenceServerException):
                raise answer
            if answer.as_numpy(outputs[0]) is not None:
                found.append(answer)
            if answer.get_response().parameters["triton_final_response"].bool_param:
                return found
    finally:
        client.stop_stream()


def generate(served, model="ensemble", **body):
    body = {"text_input": PROMPT, "max_tokens": 8, **body}
    return httpx.post(f"{served['http_url']}/v2/models/{model}/generate", json=body, timeout=120)


def text(answer):
    return answer.as_numpy("text_output").reshape(-1)[0].decode()


@pytest.mark.parametrize("model", MODELS)
def test_a_request_with_every_optional_input_is_answered(client, model):
    values = {**EVERY_OPTION, **(EVERY_OPTION_OF_BLS if model == "tensorrt_llm_bls" else {})}
    metadata = client.get_model_metadata(model)
    assert values.keys() | {"text_input", "max_tokens"} == {tensor.name for tensor in metadata.inputs}
    outputs = [tensor.name for tensor in metadata.outputs]

    (answer,) = answers(client, model, {"text_input": PROMPT.encode(), "max_tokens": 8, **values}, outputs)

    assert text(answer).startswith(" Paris")
    assert answer.as_numpy("num_input_tokens").item() == 5
    count = answer.as_numpy("num_output_tokens").item()
    log_probs = answer.as_numpy("output_log_probs").reshape(-1)
    assert (len(log_probs), bool((log_probs < 0).all())) == (count, True)
    assert answer.as_numpy("cum_log_probs").item() == pytest.approx(float(log_probs.sum()), rel=1e-3)
    assert answer.as_numpy("last_token_time_ns").item() >= answer.as_numpy("first_token_time_ns").item() > 0
    assert answer.as_numpy("finish_reason").item() in {b"stop", b"length"}


def test_raw_requests_of_several_ids_share_a_stream(served):
    """As perf_analyzer sends them: bytes of tensors beside the message, several requests on one stream."""
    stub = grpc.service_pb2_grpc.GRPCInferenceServiceStub
    raw = [struct.pack("<I", len(PROMPT)) + PROMPT.encode(), struct.pack("<i", 6)]

    def requests():
        for number in range(8):
            made = service_pb2.ModelInferRequest(model_name="ensemble", id=f"raw-{number}", raw_input_contents=raw)
            for name, kind in (("text_input", "BYTES"), ("max_tokens", "INT32")):
                made.inputs.add(name=name, datatype=kind, shape=[1, 1])
            made.outputs.add(name="text_output")
            yield made

    import grpc as channels

    with channels.insecure_channel(served["grpc_url"]) as channel:
        found = {}
        for reply in stub(channel).ModelStreamInfer(requests(), timeout=120):
            assert reply.error_message == ""
            content = reply.infer_response.raw_output_contents[0]
            found.setdefault(reply.infer_response.id, []).append(content[4:].decode())

    assert found.keys() == {f"raw-{number}" for number in range(8)}
    assert {"".join(pieces) for pieces in found.values()} == {generate(served, max_tokens=6).json()["text_output"]}


def test_binary_tensors_over_http_reach_the_models_that_answer_once(served):
    with http.InferenceServerClient(served["http_url"].removeprefix("http://")) as client:
        query = http.InferInput("QUERY", [2, 1], "BYTES")
        query.set_data_from_numpy(np.array([[b"Hello"], [PROMPT.encode()]], object), binary_data=True)
        length = http.InferInput("REQUEST_OUTPUT_LEN", [2, 1], "INT32")
        length.set_data_from_numpy(np.full((2, 1), 4, np.int32), binary_data=True)
        made = client.infer("preprocessing", [query, length])
        tokens, lengths = made.as_numpy("INPUT_ID"), made.as_numpy("REQUEST_INPUT_LEN")
        batch = http.InferInput("TOKENS_BATCH", [1, 1, 5], "INT32")
        batch.set_data_from_numpy(tokens[1:, None], binary_data=True)
        counts = http.InferInput("SEQUENCE_LENGTH", [1, 1], "INT32")
        counts.set_data_from_numpy(lengths[1:], binary_data=True)
        text = client.infer("postprocessing", [batch, counts]).as_numpy("OUTPUT")

    assert (tokens.shape, lengths.tolist()) == ((2, 5), [[1], [5]])
    assert text.tolist() == [PROMPT.encode()]


@pytest.mark.parametrize("model", MODELS)
def test_messages_are_the_chat_that_one_would_type_out(served, model):
    question = "What is the capital of France?"
    messages = json.dumps([{"role": "user", "content": question}])
    more = {"max_tokens": 24, "return_num_input_tokens": True}
    asked = generate(served, model, text_input="", messages=messages, **more).json()
    typed = generate(served, model, text_input=chat(question), **more).json()

    fields = ("text_output", "num_input_tokens", "finish_reason")
    assert [asked[name] for name in fields] == [typed[name] for name in fields]
    assert "Paris" in asked["text_output"]


def test_several_answers_have_indices_and_differ(client):
    values = {"text_input": b"Once upon a time", "max_tokens": 12, "num_return_sequences": 3, "temperature": 1.5}
    for model in MODELS:
        values["seed"] = 5
        found = answers(client, model, values, ["text_output", "sequence_index", "finish_reason"])
        assert sorted(answer.as_numpy("sequence_index").item() for answer in found) == [0, 1, 2]
        assert len({text(answer) for answer in found}) == 3


def test_bad_words_stay_out_stop_words_end_and_guides_are_followed(served):
    plain = generate(served, max_tokens=12).json()["text_output"]
    assert plain.startswith(" Paris")

    without = generate(served, max_tokens=12, bad_words=["Paris"]).json()["text_output"]
    assert (len(without) > 10, "Paris" in without) == (True, False)
    assert generate(served, max_tokens=12, stop_words=["aris"]).json()["text_output"] == " Paris"
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    guide = {"guided_decoding_guide_type": "json_schema", "guided_decoding_guide": json.dumps(schema), "max_tokens": 64}
    assert list(json.loads(generate(served, **guide).json()["text_output"])) == ["a"]
    guide = {"guided_decoding_guide_type": "regex", "guided_decoding_guide": " [0-9]{3} (yes|no)"}
    assert generate(served, **guide).json()["text_output"][4:] in {" yes", " no"}


WRONG = [
    ({"max_tokens": 0}, "max_tokens is 0; it must be 1 or more."),
    ({"max_tokens": 100_000}, "the server is set up for 8192 tokens of both together, so max_tokens can be 8187."),
    ({"text_input": "word " * 9000}, "tokens, and the server is set up for 8192 tokens of prompt and answer together."),
    ({"text_input": "a" * 20_000_000}, "text_input has 20000000 characters, which cannot fit into the 8192 tokens"),
    ({"text_input": ""}, "text_input is empty; there is nothing to continue."),
    ({"messages": "[]"}, "text_input and messages are both given"),
    ({"text_input": "", "messages": "{"}, "messages is not JSON"),
    ({"temperature": -1.0}, "temperature is -1.0; it must be 0 or more."),
    ({"top_k": -5}, "top_k is -5; it must be 0 or more."),
    ({"frequency_penalty": 9.0}, "frequency_penalty is 9.0; it must be between -2 and 2."),
    ({"stop_words": ["x"] * 5000}, "5000 stop or bad words are given; 256 at most can be watched for."),
    ({"beam_width": 4}, "beam_width = 4 is not supported by the CPU engine; it can do 1."),
    ({"num_return_sequences": 100_000}, "num_return_sequences is 100000; it may be"),
    ({"guided_decoding_guide_type": "regex", "guided_decoding_guide": "[0-9"}, "Unclosed '['"),
    (
        {"guided_decoding_guide_type": "regex", "guided_decoding_guide": "((a{0,1000}){0,1000}){0,1000}"},
        "it takes more than 5 s to prepare.",
    ),
]


@pytest.mark.parametrize("model", MODELS)
def test_every_wrong_request_is_a_400_with_a_sentence_and_the_next_one_an_answer(served, model):
    for body, sentence in WRONG:
        reply = generate(served, model, **body)
        assert (reply.status_code, sentence in reply.text) == (400, True), reply.text[:500]

    assert generate(served, model, max_tokens=1).json()["text_output"] == " Paris"


@pytest.mark.parametrize(
    "path",
    [
        *(f"{model}/{how}" for model in MODELS for how in ("generate", "generate_stream", "infer")),
        "preprocessing/infer",
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        *(b"{", b"[]", b"", b"null", b"3", b"\xff\xfe", bytes(range(99)), b"[" * 10_000, b"[" * 1_000_000),
        b'{"text_input": 3, "max_tokens": "x"}',
        b'{"text_input": {"a": 1}, "max_tokens": 1}',
        b'{"text_input": "a", "max_tokens": 1, "parameters": 3}',
        b'{"inputs": 3}',
        b'{"inputs": [{"name": "QUERY", "shape": "x", "datatype": "BYTES", "data": ["a"]}]}',
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_cannot_be_read_is_a_400_with_a_sentence(served, path, body):
    reply = httpx.post(f"{served['http_url']}/v2/models/{path}", content=body, timeout=30)
    assert (reply.status_code, len(reply.json()["error"]) > 20) == (400, True), reply.text


def test_deep_json_is_found_where_it_is_compressed_and_tensors_are_no_json(served):
    """It would end Triton, and with it every other test of this file."""
    url = f"{served['http_url']}/v2/models/preprocessing/infer"
    packed = gzip.compress(b"[" * 1_000_000)
    reply = httpx.post(url, content=packed, headers={"Content-Encoding": "gzip"}, timeout=30)
    assert (reply.status_code, reply.json()["error"]) == (400, "The request's JSON nests deeper than 512 levels.")

    values = {"QUERY": np.array([["[" * 3000]], object), "REQUEST_OUTPUT_LEN": np.array([[4]], np.int32)}
    inputs = [http.InferInput(name, [1, 1], np_to_triton_dtype(value.dtype)) for name, value in values.items()]
    for one, value in zip(inputs, values.values(), strict=True):
        one.set_data_from_numpy(value, binary_data=True)
    client = http.InferenceServerClient(served["http_url"].removeprefix("http://"))
    for packing in (None, "gzip", "deflate"):
        answer = client.infer("preprocessing", inputs, request_compression_algorithm=packing)
        assert answer.as_numpy("INPUT_ID").size > 100
    client.close()


def test_numbers_that_are_none_and_text_that_is_none_are_refused(client):
    for values, sentence in (
        ({"temperature": float("nan")}, "temperature is nan; it must be 0 or more."),
        ({"top_p": float("nan")}, "top_p is nan; it must be between 0 and 1."),
        ({"text_input": b"\xff\xfe"}, "text_input is not UTF-8."),
        ({"messages": b"\xff", "text_input": b""}, "messages is not UTF-8."),
        ({"max_tokens": np.full((1, 2), 5, np.int32)}, "[1,2]"),
    ):
        for model in MODELS:
            asked = {"text_input": PROMPT.encode(), "max_tokens": 4, **values}
            with pytest.raises(InferenceServerException) as caught:
                answers(client, model, asked, ["text_output"])
            assert sentence in caught.value.message()


def metrics(served):
    """Return the engine's series by family and label."""
    found = {}
    for line in httpx.get(served["metrics_url"]).text.splitlines():
        if line.startswith(("nv_trt_llm", "nv_llm")) and "_bucket" not in line:
            labels, _, value = line.partition("{")[2].partition("} ")
            names = {name: text.strip('"') for name, text in (each.split("=") for each in labels.split(","))}
            assert (names.pop("model"), names.pop("version")) == ("tensorrt_llm", "1")
            (label,) = names.values()
            found[line.partition("{")[0], label] = float(value)
    return found


def wait_for(served, is_so, timeout_s=30):
    deadline = time.monotonic() + timeout_s
    while not is_so(found := metrics(served)):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def test_kv_blocks_and_requests_are_seen_in_the_metrics_and_gone_when_a_client_leaves(served):
    blocks, requests = "nv_trt_llm_kv_cache_block_metrics", "nv_trt_llm_request_metrics"
    body = {"id": "leaving", "text_input": "word " * 300, "max_tokens": 4000, "end_id": -1, "stream": True}
    url = f"{served['http_url']}/v2/models/ensemble/generate_stream"
    before = metrics(served)
    with httpx.stream("POST", url, json=body, timeout=60) as reply:
        next(reply.iter_lines())
        busy = wait_for(served, lambda found: found[requests, "active"] == 1 and found[blocks, "used"] > 9)
    idle = wait_for(served, lambda found: found[requests, "active"] == 0 and found[blocks, "used"] == 0)

    assert busy[blocks, "used"] + busy[blocks, "free"] == busy[blocks, "max"]
    assert busy[blocks, "fraction"] == pytest.approx(busy[blocks, "used"] / busy[blocks, "max"], abs=1e-3)
    assert (idle[blocks, "free"], idle[blocks, "tokens_per"]) == (idle[blocks, "max"], 32)
    steps = ("nv_trt_llm_general_metrics", "iteration_counter")
    assert idle[steps] > before[steps]
    assert busy["nv_trt_llm_runtime_memory_metrics", "cpu"] > 100 << 20
    counts = "nv_llm_output_token_len_count", "total_output_tokens"
    generate(served, max_tokens=1)
    wait_for(served, lambda found: found[counts] == before[counts] + 1)
