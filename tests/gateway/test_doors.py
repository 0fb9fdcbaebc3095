"""Who is let in, how much of what they send is held, and what they hear when the gateway stops."""

import contextlib
import dataclasses
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import httpx
import openai
import pytest

from toolkit import specs
from toolkit.gateway.config import Limits
from toolkit.gateway.origins import need_own
from toolkit.gateway.refusals import Refusal

HEAD = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"


@pytest.fixture(scope="module")
def running(gateways):
    with gateways(limits=Limits(body_bytes=9_000, bodies_bytes=10_000, body_s=20)) as one:
        yield one


def asked(running, **headers):
    return httpx.get(f"{running.url}/v1/models", headers=headers)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:9", "[::1]:80", "app.localhost", "127.1.2.3"])
def test_who_asks_this_machine_by_a_name_of_its_own_is_let_in(running, host):
    assert asked(running, host=host).status_code == 200
    assert asked(running, origin=f"http://{host}").status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1", "[::2]", "["]
)
def test_a_name_that_somebody_points_at_this_machine_opens_nothing(running, host):
    refused = asked(running, host=host)

    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert refused.json()["error"]["message"] == (
        f"This endpoint has no keys and is not {host!r}. Ask it as localhost, or have it started with --api-keys."
    )


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://10.0.0.1:3000", "file://"])
def test_a_page_of_another_site_cannot_make_the_model_work(running, origin):
    refused = httpx.post(
        f"{running.url}/v1/completions", headers={"origin": origin}, content='{"model": "demo", "prompt": "x"}'
    )

    assert (refused.status_code, running.triton.asked) == (403, [])


def test_where_others_reach_it_its_keys_decide_and_not_its_name():
    need_own("model.example.org", "https://example.org", host="0.0.0.0")
    with pytest.raises(Refusal):
        need_own("model.example.org", "", host="::1")


@contextlib.contextmanager
def sending(running, declared, sent):
    """Hold a request open that has sent so much of its body."""
    with socket.create_connection(("127.0.0.1", running.config.port)) as connection:
        connection.settimeout(20)
        connection.sendall(HEAD.format(declared).encode() + b"x" * sent)
        yield connection


def test_bodies_that_come_slowly_cannot_fill_the_memory_together(running, until):
    held = running.gateway.bodies
    with sending(running, 9_000, 8_000):
        until(lambda: held.held_bytes == 8_000)
        with sending(running, 8_000, 8_000) as another:
            answer = another.recv(1000)
            assert answer.startswith(b"HTTP/1.1 429 ")
            assert b"\r\nretry-after: 1\r\n" in answer
        assert httpx.post(f"{running.url}/v1/completions", content=b"{}").status_code == 400  # a small one is read
    until(lambda: held.held_bytes == 0)
    assert httpx.post(f"{running.url}/v1/completions", content=b"x" * 8_000).status_code == 400
    assert held.held_bytes == 0


def test_answers_that_a_stop_cuts_off_say_so(running, client_of, script, tmp_path, until):
    config = dataclasses.replace(running.gateway.config, port=free_port(), drain_s=1, limits=Limits())
    (tmp_path / "config.json").write_text(json.dumps(specs.to_json(config)))
    process = subprocess.Popen([sys.executable, "-m", "toolkit.gateway", tmp_path / "config.json"])
    prompt = script(*["one"] * 600, delay_s=0.1)

    def cut_off(**more):
        with client_of(SimpleNamespace(url=f"http://127.0.0.1:{config.port}")) as client:
            answer = client.completions.create(model="demo", prompt=prompt, **more)
            return list(answer)

    try:
        until(lambda: is_listening(config.port))
        with ThreadPoolExecutor() as threads:
            before = len(running.triton.asked)
            streamed, whole = threads.submit(cut_off, stream=True), threads.submit(cut_off)
            until(lambda: len(running.triton.asked) == before + 2)
            time.sleep(0.5)  # the stream has begun
            process.terminate()
            with pytest.raises(openai.APIError, match=r"^The server is stopping\.$"):
                streamed.result(30)
            with pytest.raises(openai.InternalServerError, match=r"The server is stopping\.") as refused:
                whole.result(30)
        assert (refused.value.status_code, refused.value.response.headers["retry-after"]) == (503, "5")
        process.wait(20)
    finally:
        process.kill()
        process.wait()


def is_listening(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
