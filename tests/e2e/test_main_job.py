"""The main job on the real model: build, serve, talk by HTTP and by plain tritonclient, load-test, stop."""

import json
import os
import queue
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from tests.e2e.conftest import chat, run_trtk
from toolkit.bench import validity

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.engine]
PROMPTS = {
    "chat": chat("What is the capital of France?"),
    "code": "def fibonacci(n):\n    if n",
    "emoji": "Repeat these emoji: \U0001f600 \U0001f680 \U0001f30d \U0001f600 \U0001f680 \U0001f30d \U0001f600",
    "Chinese": "你好，世界。你好，世界。你好，世界。你好，",
    "Arabic": "مرحبا بالعالم. مرحبا بالعالم. مرحبا",
    "spaces": "   leading and trailing spaces   ",
    "one character": "A",
}


def generate(endpoint, prompt, tokens=48, **more):
    body = {"text_input": prompt, "max_tokens": tokens, **more}
    reply = httpx.post(f"{endpoint['http_url']}/v2/models/ensemble/generate", json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    return reply.json()["text_output"]


def stream_grpc(endpoint, prompt, tokens=48, model="ensemble"):
    """Return the pieces that plain tritonclient receives."""
    import tritonclient.grpc as triton

    def tensor(name, value, kind):
        made = triton.InferInput(name, [1, 1], kind)
        made.set_data_from_numpy(np.array([[value]], dtype=KINDS[kind]))
        return made

    arrived = queue.Queue()
    inputs = [
        tensor("text_input", prompt, "BYTES"),
        tensor("max_tokens", tokens, "INT32"),
        tensor("stream", True, "BOOL"),
    ]
    with triton.InferenceServerClient(endpoint["grpc_url"]) as client:
        client.start_stream(callback=lambda result, error: arrived.put((result, error)))
        client.async_stream_infer(
            model, inputs, outputs=[triton.InferRequestedOutput("text_output")], enable_empty_final_response=True
        )
        pieces, is_last = [], False
        while not is_last:
            result, error = arrived.get(timeout=60)
            assert error is None, error
            answer = result.get_response()
            is_last = answer.parameters["triton_final_response"].bool_param
            text = result.as_numpy("text_output")
            if text is not None:
                pieces.append(text.reshape(-1)[0].decode())
        client.stop_stream()
    return pieces


KINDS = {"INT32": np.int32, "BOOL": np.bool_, "BYTES": np.object_}


def test_the_build_says_what_it_made(built):
    folder, document = built("int4")
    manifest = json.loads((folder / "manifest.json").read_text())

    assert (document["kind"], document["gpu"], document["quant"]) == ("openvino", "cpu", "int4")
    assert (document["group_size"], document["is_deferred"], document["is_reused"]) == (64, False, False)
    assert manifest["plan"]["plan_id"] == document["plan_id"]
    for record in manifest["files"]:
        assert (folder / record["path"]).stat().st_size == record["size_bytes"]
    assert {record["path"] for record in manifest["files"]} >= {
        "checkpoint/config.json",
        "checkpoint/rank0.safetensors",
        "engine/openvino_model.xml",
        "engine/openvino_tokenizer.xml",
        "model_repository/ensemble/config.pbtxt",
        "tokenizer/tokenizer.json",
    }


def test_the_question_is_answered_over_http(served):
    assert "Paris" in generate(served, PROMPTS["chat"])


def test_the_question_is_answered_piece_by_piece_over_grpc(served):
    pieces = stream_grpc(served, PROMPTS["chat"])

    assert "Paris" in "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 3


@pytest.mark.parametrize("model", ["ensemble", "tensorrt_llm_bls"])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_streamed_text_equals_whole_text_byte_for_byte(served, prompt, model):
    whole = generate(served, prompt)

    assert "".join(stream_grpc(served, prompt, model=model)).encode() == whole.encode()


def test_the_load_test_writes_its_report(served, place):
    folder, env = place
    options = ("--url", f"grpc://{served['grpc_url']}", "--concurrency", 4, "--requests", 8, "--isl", 16, "--osl", 16)
    code, out, err = run_trtk("bench", *options, "-o", "reports/e2e", "--json", cwd=folder, env=env)
    assert code == 0, err
    report = json.loads(out)

    assert json.loads((folder / "reports/e2e/report.json").read_text()) == report
    assert report["requests"] == {"sent": 8, "ok": 8, "failed": 0, "cancelled": 0}
    assert (report["output_tokens"], report["token_count_source"]) == (8 * 16, "server")
    assert report["valid"] == (
        report["send_lag_ms"]["p99"] <= validity.MAX_SEND_LAG_P99_MS
    )  # a busy machine sends late, and the report says so
    served_by = [report["environment"][f"served_{name}"] for name in ("model", "quant", "gpu")]
    assert served_by == ["demo", "int4", "cpu"]
    assert report["ttft_ms"]["p50"] < report["e2e_latency_ms"]["p50"]
    assert len((folder / "reports/e2e/requests.jsonl").read_text().splitlines()) == 8
    assert "<svg" in (folder / "reports/e2e/report.html").read_text()


def test_a_bad_request_gets_a_sentence_and_the_next_one_an_answer(served):
    url = f"{served['http_url']}/v2/models/ensemble/generate"
    for body in (
        {"text_input": "Hi", "max_tokens": 0},
        {"text_input": "Hi", "max_tokens": 8, "temperature": -1.0},
        {"text_input": "word " * 9000, "max_tokens": 8},
        {"text_input": "Hi"},
    ):
        reply = httpx.post(url, json=body, timeout=60)
        assert 400 <= reply.status_code < 600
        assert "Traceback" not in reply.text
        assert reply.json()["error"]

    assert generate(served, "Hello", tokens=4)


def test_leaving_a_stream_frees_the_engine(served):
    """A client that goes away does not keep the engine busy to the end of its 4,000 tokens."""
    body = {"text_input": "Count: 1 2 3", "max_tokens": 4000, "end_id": -1, "stream": True, "id": "leaver"}
    with httpx.stream(
        "POST", f"{served['http_url']}/v2/models/ensemble/generate_stream", json=body, timeout=60
    ) as reply:
        next(reply.iter_lines())
    time.sleep(2)

    started = time.monotonic()
    generate(served, PROMPTS["chat"], tokens=8)
    assert time.monotonic() - started < 5
    assert cpu_seconds(served["pid"], over_s=2) < 1.0


def cpu_seconds(leader, over_s):
    """Return the CPU time that a server's session uses in a while."""

    def used():
        total = 0
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = stat.read_text().rpartition(")")[2].split()
            except OSError:  # it ended meanwhile
                continue
            if int(fields[3]) == leader or int(stat.parent.name) == leader:
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(over_s)
    return used() - before


def test_a_second_build_is_told_apart_from_the_first_in_a_second(built, place):
    folder, env = place
    engine, first = built("int4")

    code, out, err = run_trtk(
        "build", "demo", "--gpu", "cpu", "--quant", "int4", "-o", engine, "--json", cwd=folder, env=env
    )

    assert code == 0, err
    assert {**json.loads(out), "is_reused": False, "folder": first["folder"], "manifest": first["manifest"]} == first


def test_for_an_nvidia_gpu_a_bundle_is_left(place):
    folder, env = place
    target = folder / "engines/demo-a4500"
    # Plain rounding: what is in the bundle does not depend on how its integers were found.
    code, out, err = run_trtk(
        "build", "demo", "--gpu", "a4500", "--quant", "int4_rtn", "-o", target, "--json", cwd=folder, env=env
    )
    assert code == 0, err
    document = json.loads(out)

    assert (document["kind"], document["sm"], document["is_deferred"]) == ("trtllm", 86, True)
    assert json.loads((target / "checkpoint/config.json").read_text())["quantization"]["quant_algo"] == "W4A16_AWQ"
    bundle = json.loads((target / "bundle.json").read_text())
    assert bundle["commands"]["86"][:3] == ["trtllm-build", "--checkpoint_dir", "{checkpoint}"]
    assert bundle["image"] == "nvcr.io/nvidia/tritonserver:26.07-trtllm-python-py3"
    config = (target / "model_repository/tensorrt_llm/config.pbtxt").read_text()
    assert 'backend: "tensorrtllm"' in config
    code, _, err = run_trtk("serve", target, "--detach", cwd=folder, env=env)
    assert code == 4
    assert "Traceback" not in err
