"""Watching and asking a real server: a tiny random model, the embedded tritonserver, a real Prometheus."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
import urllib.parse
import urllib.request

import pytest
import yaml

from tests.conftest import save_llama
from tests.e2e.conftest import TRTK, free_ports, run_trtk
from toolkit.monitoring.exported import selectors

pytestmark = [pytest.mark.engine, pytest.mark.server]
TEMPLATE = "{% for message in messages %}<{{ message.role }}>{{ message.content }}\n{% endfor %}<assistant>"
CONTEXT = 8192
GREEDY = ("--temperature", "0")  # OpenAI's default is 1


class Place:
    """A working folder with one engine, and the servers that run in it."""

    def __init__(self, folder):
        self.folder = folder
        self.env = {"TRTK_STATE": str(folder / "state"), "TRTK_CACHE": os.environ.get("TRTK_TEST_CACHE", f"{folder}/c")}

    def trtk(self, *arguments, stdin=None):
        done = self.start(*arguments, stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE)
        out, err = done.communicate(None if stdin is None else stdin, timeout=120)
        return done.returncode, out, err

    def start(self, *arguments, stdin=subprocess.DEVNULL):
        return subprocess.Popen(
            [*TRTK, *map(str, arguments)],
            cwd=self.folder,
            env={**os.environ, **self.env},
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def serve(self, name):
        ports = free_ports(4)
        options = ("--http-port", ports[0], "--grpc-port", ports[1], "--metrics-port", ports[2])
        options += ("--openai", "--openai-port", ports[3])
        command = ("serve", "engine", "--name", name, "--restart", "no", "--detach", "--json", *options)
        code, out, err = run_trtk(*command, cwd=self.folder, env=self.env)
        assert code == 0, err
        return json.loads(out)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watching")
    model = folder / "tiny"
    model.mkdir()
    save_llama(model, max_position_embeddings=CONTEXT)
    path = model / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"chat_template": TEMPLATE, "model_max_length": CONTEXT}
    path.write_text(json.dumps(settings))
    made = Place(folder)
    command = ("build", "./tiny", "--gpu", "cpu", "--quant", "fp16", "-o", "engine")
    code, _, err = run_trtk(*command, cwd=folder, env=made.env)
    assert code == 0, err
    yield made
    run_trtk("stop", "--all", cwd=folder, env=made.env)


@pytest.fixture(scope="module")
def server(place):
    """The endpoint document of a server that has answered something."""
    made = place.serve("tiny")
    for url in (f"grpc://{made['grpc_url']}", openai_url(made)):
        assert place.trtk("infer", "Hello", "--url", url, "--max-tokens", "4")[0] == 0
    return made


def openai_url(server):
    companion, _ = server["spec"]["companions"]
    return f"openai+{companion['url']}"


@pytest.fixture(scope="module")
def monitoring(place, server):  # noqa: ARG001 - it has to be there
    """The folder that `trtk monitoring` wrote for the server, and its --json document."""
    code, out, err = place.trtk("monitoring", "tiny", "-o", "monitoring", "--json")
    assert code == 0, err
    return place.folder / "monitoring", json.loads(out)


def scraped(server):
    """What the server and its OpenAI endpoint export, as they say it."""
    urls = (server["metrics_url"], f"{openai_url(server).removeprefix('openai+').removesuffix('/v1')}/metrics")
    texts = []
    for url in urls:
        with urllib.request.urlopen(url, timeout=5) as answer:
            texts.append(answer.read().decode())
    return "\n".join(texts)


def gauge(server, family, label):
    found = re.search(rf"^{family}{{[^}}]*{label}[^}}]*}} (\S+)$", scraped(server), re.MULTILINE)
    return float(found[1])


def expressions(folder):
    groups = yaml.safe_load((folder / "alerts.yml").read_text())["groups"]
    panels = json.loads((folder / "dashboard.json").read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [rule["expr"] for group in groups for rule in group["rules"]], queries


def test_every_series_that_the_files_read_is_exported_by_the_server_they_were_made_for(server, monitoring):
    folder, document = monitoring
    lines = [line for line in scraped(server).splitlines() if line and not line.startswith("#")]
    names = {re.match(r"[\w:]+", line)[0] for line in lines}
    rules, queries = expressions(folder)
    read = [one for text in (*rules, *queries) for one in selectors(text)]
    assert {one.name for one in read if not one.name.startswith("trtk:")} - {"up"} <= names
    for one in read:
        for label, operator, value in one.matchers:
            if operator == "=" and label.endswith("_type"):
                assert any(line.startswith(one.name) and f'{label}="{value}"' in line for line in lines)
    assert {"nv_trt_llm_request_metrics", "nv_trt_llm_kv_cache_block_metrics", "nv_llm_output_token_len_sum"} <= {
        one.name for one in read
    }
    assert (document["alerts"], document["panels"]) == (12, 21)
    assert {one["what"] for one in document["left_out"]} >= {"alert TrtkGpuHot", "panel GPU memory"}


def test_promtool_takes_what_was_made_for_a_live_server(monitoring):
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    for command in (("check", "config", "prometheus.yml"), ("test", "rules", "alerts_test.yml")):
        subprocess.run(["promtool", *command], cwd=monitoring[0], check=True, capture_output=True)


@pytest.fixture
def prometheus(monitoring, tmp_path):
    """A Prometheus that runs what was written, but reads every second; yields its address."""
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed: Debian has it in the package prometheus")
    for path in monitoring[0].iterdir():
        text = path.read_text().replace("scrape_interval: 5s", "scrape_interval: 1s")
        (tmp_path / path.name).write_text(text.replace("evaluation_interval: 15s", "evaluation_interval: 1s"))
    (port,) = free_ports(1)
    options = (f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={tmp_path}/data")
    process = subprocess.Popen(
        ["prometheus", f"--config.file={tmp_path}/prometheus.yml", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(20)


def asked(url):
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def test_prometheus_reads_the_server_and_every_panel_has_data(place, server, monitoring, prometheus):
    query = f"{prometheus}/api/v1/query?query="
    deadline = time.monotonic() + 40
    while not (asked(f"{query}count_over_time(up%5B1m%5D)%3E3") or {}).get("result") and time.monotonic() < deadline:
        for url in (f"grpc://{server['grpc_url']}", openai_url(server)):
            assert place.trtk("infer", "Hello", "--url", url, "--max-tokens", "8")[0] == 0
    empty = []
    for text in expressions(monitoring[0])[1]:
        expression = text.replace("$server", ".*").replace("$__rate_interval", "1m")
        answer = asked(query + urllib.parse.quote(expression))
        assert answer is not None, expression
        if not answer["result"]:
            empty.append(expression)
    assert empty == []
    groups = asked(f"{prometheus}/api/v1/rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} == {"ok"}
    assert asked(f"{prometheus}/api/v1/alerts")["alerts"] == []


def test_top_says_what_a_busy_server_does(place, server):
    busy = place.start("infer", "Hello", "--name", "tiny", "--max-tokens", CONTEXT - 100)
    busy.stdout.read(1)
    code, out, _ = place.trtk("top", "tiny", "--json", "--interval", "0.3")
    busy.send_signal(signal.SIGINT)
    busy.communicate(timeout=30)
    assert code == 0
    (one,) = json.loads(out)["servers"]
    (engine,) = one["figures"]["engines"]
    assert (one["gateway"]["in_flight"], one["gateway"]["requests"]["200"] > 0) == (0.0, True)
    assert (one["name"], one["state"], one["url"]) == ("tiny", "ready", server["metrics_url"])
    assert (engine["model"], engine["requests_active"], engine["requests_waiting"]) == ("tensorrt_llm", 1.0, 0.0)
    assert engine["kv_blocks_used"] + engine["kv_blocks_free"] == engine["kv_blocks_max"]
    assert 0 < engine["kv_fraction"] <= 1
    assert [model["model"] for model in one["figures"]["models"]] == [
        "ensemble",
        "postprocessing",
        "preprocessing",
        "tensorrt_llm",
        "tensorrt_llm_bls",
    ]


def test_top_fits_80_columns_and_a_dash_is_what_is_not_exported(place):
    place.env["COLUMNS"] = "80"
    code, out, _ = place.trtk("top", "--once")
    assert code == 0
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("tiny  ready  up ")
    assert re.fullmatch(r"  KV cache  [█░]{24} \d+ %  [\d,]+ of [\d,]+ blocks", lines[2].rstrip())


def test_ctrl_c_ends_an_answer_and_the_servers_work_on_it(place, server):
    asking = place.start("infer", "Hello", "--name", "tiny", "--max-tokens", CONTEXT - 100)
    asking.stdout.read(1)
    seen = time.monotonic() + 10  # the engine says its numbers ten times a second
    while gauge(server, "nv_trt_llm_request_metrics", 'request_type="active"') != 1:
        assert time.monotonic() < seen
    asking.send_signal(signal.SIGINT)
    _, err = asking.communicate(timeout=30)
    assert (asking.returncode, err) == (130, "Interrupted; the server was told to stop.\n")
    deadline = time.monotonic() + 20
    while gauge(server, "nv_trt_llm_request_metrics", 'request_type="active"') and time.monotonic() < deadline:
        time.sleep(0.1)
    steps = gauge(server, "nv_trt_llm_general_metrics", 'general_type="iteration_counter"')
    assert gauge(server, "nv_trt_llm_request_metrics", 'request_type="active"') == 0, steps
    time.sleep(0.5)
    assert gauge(server, "nv_trt_llm_general_metrics", 'general_type="iteration_counter"') - steps < 20


def test_grpc_http_and_openai_streamed_or_whole_say_what_curl_gets(place, server):
    body = {"text_input": "The quick", "max_tokens": 24, "exclude_input_in_output": True}
    url = f"{server['http_url']}/v2/models/ensemble/generate"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode()), timeout=30) as answer:
        expected = json.load(answer)["text_output"]
    for url in (f"grpc://{server['grpc_url']}", server["http_url"], openai_url(server)):
        for stream in ("--stream", "--no-stream"):
            code, out, err = place.trtk("infer", "The quick", "--url", url, "--max-tokens", "24", stream, *GREEDY)
            assert (code, out.rstrip("\n")) == (0, expected.rstrip("\n"))
            assert re.fullmatch(r"4 tokens in, 24 tokens out, first after \S+ ms(, then .*)?, finish: length\n", err)


def test_a_chat_sends_the_whole_conversation_through_the_models_template(place, server):
    told = ("chat", "--system", "Be brief.", "--max-tokens", "8", "--json", *GREEDY)
    code, out, err = place.trtk(*told, stdin="One\n\nTwo\n")
    assert code == 0, err
    document = json.loads(out)
    code, out, err = place.trtk(*told, "--url", openai_url(server), stdin="One\n\nTwo\n")
    assert (code, json.loads(out)["messages"]) == (0, document["messages"]), err
    first, second = (reply["text"] for reply in document["replies"])
    assert document["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "Two"},
        {"role": "assistant", "content": second},
    ]
    typed = f"<system>Be brief.\n<user>One\n<assistant>{first}\n<user>Two\n<assistant>"
    code, out, _ = place.trtk("infer", typed, "--max-tokens", "8", "--json", "--url", server["http_url"])
    assert (code, json.loads(out)["text"]) == (0, second)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("infer", "Hi", "--model", "nope"), 2, "There is no model on the server named 'nope'."),
        (("infer", "Hi", "--name", "other"), 2, "There is no server named 'other'."),
        (("infer", "Hi", "--model", "preprocessing"), 6, "preprocessing has no input for a text."),
        (("infer", "Hi", "--max-tokens", "9000000"), 6, "The server refused: "),
        (("top", "other", "--once"), 2, "There is no server named 'other'."),
        (("monitoring", "other"), 2, "There is no server named 'other'."),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(place, server, arguments, code, said):  # noqa: ARG001
    returned, out, err = place.trtk(*arguments)
    assert (returned, out, err.startswith(f"Error: {said}"), "Traceback" in err) == (code, "", True, False), err


def test_a_server_that_dies_in_the_middle_of_an_answer_is_named(place, server):  # noqa: ARG001
    doomed = place.serve("doomed")
    code, _, err = place.trtk("infer", "Hi")
    assert (code, err.startswith("Error: 2 servers are running: "), "--name" in err) == (2, True, True)
    asking = place.start("infer", "Hello", "--name", "doomed", "--max-tokens", "4000")
    asking.stdout.read(1)
    os.kill(doomed["pid"], signal.SIGKILL)
    _, err = asking.communicate(timeout=60)
    assert (asking.returncode, err) == (
        6,
        f"Error: grpc://{doomed['grpc_url']}: The connection broke: the server closed it.\n"
        "Hint: `trtk status` says how the server is, `trtk logs` what it said last.\n",
    )
    deadline = time.monotonic() + 20
    while (seen := place.trtk("top", "doomed", "--json"))[0] != 6 and time.monotonic() < deadline:
        time.sleep(0.2)
    code, out, err = seen
    (one,) = json.loads(out)["servers"]
    assert (code, one["figures"], err.startswith(f"Error: doomed is {one['state']}: ")) == (6, None, True)
    assert place.trtk("chat", "--name", "doomed", stdin="Hi\n")[0] == 6
    assert place.trtk("stop", "doomed")[0] == 0
