"""The CPU engine's thread and its guides: nobody is left to wait, and nothing is left behind."""

import os
import sys
import threading
import time
from types import SimpleNamespace

import pytest

CHECKER = """
import json, pathlib, sys, time
pathlib.Path(sys.argv[2], "model").touch()
for line in sys.stdin:
    if json.loads(line)[1] == "slow":
        time.sleep(60)
    print('""', flush=True)
"""


class Reply:
    is_closed, request_id = False, ""

    def __init__(self):
        self.failures = []

    def fail(self, error):
        self.failures.append(str(error))


@pytest.fixture
def engine(served):
    """Return an engine that never started, its pipeline scripted to fail."""
    module = served("tensorrt_llm", "engine")

    def step():
        raise ZeroDivisionError("the step")

    settings = SimpleNamespace(pipeline=lambda _: SimpleNamespace(step=step), max_batch_size=2)
    detokenizer = SimpleNamespace(classes=bytearray)
    made = module.Engine(None, settings, detokenizer, meters=None)
    made.module = module
    return made


@pytest.fixture
def exits(monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)
    return codes


def test_a_request_that_cannot_begin_fails_alone(engine):
    reply = Reply()
    engine.add(reply, [SimpleNamespace(is_streaming=False)])  # what Words reads of a request is not there
    assert reply.failures
    assert engine.rows == []


@pytest.mark.parametrize("broken", ["step", "deliver", "drop_cancelled"])
def test_whatever_fails_in_the_thread_answers_everyone_and_ends_the_process(engine, exits, broken):
    def fail():
        raise ZeroDivisionError(broken)

    if broken != "step":
        engine.pipeline.step = lambda: None
        setattr(engine, broken, fail)
    in_flight, waiting = Reply(), Reply()
    asked = SimpleNamespace(has_log_probs=False)
    row = SimpleNamespace(reply=in_flight, asked=asked, is_done=False, collect=lambda: None, send=lambda _: None)
    engine.rows, engine.settings.stream_interval, engine.next_cancel_check = [row], 1, float("inf")
    admitted = iter([True])
    engine.admit = lambda: next(admitted)
    engine.submit(waiting, [])
    engine.run()

    assert [len(reply.failures) for reply in (in_flight, waiting)] == [1, 1]
    assert exits == [1]


def test_requests_beyond_the_queue_are_refused_at_once(served, engine):
    module = served("tensorrt_llm", "model")
    model = module.TritonPythonModel()
    config = '{"dynamic_batching": {"default_queue_policy": {"max_queue_size": 2}}}'
    model.engine, model.unchecked, model.most_waiting = engine, {}, module.queue_size({"model_config": config})
    engine.rows = [object()] * 3  # of which two run
    engine.submit(Reply(), [])

    with pytest.raises(module.Refused, match="Exceeds maximum queue size: 2 requests wait already"):
        model.take(SimpleNamespace(inputs=list), None)
    assert module.queue_size({"model_config": "{}"}) == 0


@pytest.fixture
def guides(served, tmp_path, monkeypatch):
    module = served("tensorrt_llm", "guides")
    (tmp_path / "guide_checker.py").write_text(CHECKER, encoding="utf-8")
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(module, "__file__", str(tmp_path / "guides.py"))
    monkeypatch.setattr(module, "TIMEOUT_S", 0.2)
    monkeypatch.setattr(module.tempfile, "tempdir", str(tmp_path / "scratch"))
    made = module.Guides(tmp_path)
    made.module = module
    yield made
    made.close()


def test_a_guide_that_takes_too_long_leaves_neither_a_process_nor_a_folder(guides, tmp_path, monkeypatch):
    monkeypatch.setattr(guides.module, "SLOW_FOR_S", 0.0)  # a busy machine's verdict is not for ever
    checker = guides.checkers[0]
    for _ in range(2):
        with pytest.raises(guides.module.Refused, match=r"takes more than 0\.2 s"):
            guides.check("regex", "slow")
        assert checker.process is None
        assert list((tmp_path / "scratch").iterdir()) == []
        assert not guides.is_known("regex", "slow")
    guides.check("regex", "a")
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    checker.process.kill()
    checker.process.wait()
    guides.check("regex", "b")
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    assert guides.checkers[1].process is None


def test_a_guide_that_took_too_long_is_refused_at_once_for_a_while(guides):
    with pytest.raises(guides.module.Refused, match="takes more than"):
        guides.check("regex", "slow")
    assert guides.is_known("regex", "slow")
    guides.checkers.clear()
    guides.idle.queue.clear()
    with pytest.raises(guides.module.Refused, match="takes more than"):
        guides.check("regex", "slow")


def test_a_guide_that_takes_its_time_does_not_hold_up_the_next(guides, monkeypatch):
    monkeypatch.setattr(guides.module, "TIMEOUT_S", 20.0)
    guides.check("regex", "a")

    def ask_slowly():
        with pytest.raises(guides.module.Refused):
            guides.check("regex", "slow")

    slow = threading.Thread(target=ask_slowly)
    slow.start()
    while guides.idle.qsize() == 2:
        time.sleep(0.01)
    guides.check("regex", "b")
    assert slow.is_alive()
    guides.checkers[0].process.kill()
    slow.join(20)
    assert not slow.is_alive()


@pytest.fixture
def taking(served):
    """Return a model whose engine keeps what it is told, and whose guides are checked when the test says so."""
    module = served("tensorrt_llm", "model")
    model, told, is_checked = module.TritonPythonModel(), [], threading.Event()
    model.lock, model.unchecked, model.most_waiting = threading.Lock(), {}, 0
    model.checks = module.ThreadPoolExecutor(1)
    model.engine = SimpleNamespace(
        stop=lambda request_id: told.append(f"stop {request_id}"),
        submit=lambda reply, _: told.append(f"start {reply.request_id}"),
        waiting=lambda: 0,
    )
    model.guides = SimpleNamespace(
        is_known=lambda _, guide: guide == "known", check=lambda _, guide: guide == "known" or is_checked.wait(20)
    )
    model.told, model.is_checked, model.limits = told, is_checked, None
    module.rows_of = lambda tensors, _: [SimpleNamespace(guide=("regex", tensors["guide"].item()))]
    yield model
    is_checked.set()
    model.checks.shutdown()


@pytest.mark.parametrize(
    ("parameters", "changed"),
    [
        ({}, {}),
        ({"num_threads": "3"}, {"INFERENCE_NUM_THREADS": 3}),
        ({"dynamic_quantization_group_size": "0"}, {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}),
        ({"dynamic_quantization_group_size": "64"}, {"DYNAMIC_QUANTIZATION_GROUP_SIZE": 64}),
    ],
)
def test_the_pipeline_is_opened_as_the_build_and_the_parameters_say(served, tmp_path, monkeypatch, parameters, changed):
    genai = SimpleNamespace(SchedulerConfig=SimpleNamespace, ContinuousBatchingPipeline=lambda *given: given)
    monkeypatch.setitem(sys.modules, "openvino_genai", genai)
    (tmp_path / "runtime.json").write_text('{"INFERENCE_PRECISION_HINT": "f32"}')
    settings = served("tensorrt_llm", "settings").Settings
    made = settings.read({"max_num_tokens": "64", "max_batch_size": "2", "kv_cache_bytes": "1"} | parameters)
    folder, scheduler, device, properties = made.pipeline(tmp_path)
    assert (folder, scheduler.cache_size, device) == (str(tmp_path), 1, "CPU")
    assert properties == {"INFERENCE_PRECISION_HINT": "f32"} | changed


def asking(request, request_id, **tensors):
    made = request(**tensors)
    made.request_id, made.requested_output_names = (lambda: request_id), list
    return made


def test_a_stop_that_comes_while_a_guide_is_checked_follows_its_request(taking, request_of):
    taking.take(asking(request_of, "1", guide="new"), None)
    taking.take(asking(request_of, "2", guide="known"), None)
    taking.take(asking(request_of, "1", stop=[[True]]), SimpleNamespace(send=lambda **_: None))
    assert taking.told == ["start 2", "stop 1"]
    taking.is_checked.set()
    taking.checks.shutdown(wait=True)

    assert taking.told == ["start 2", "stop 1", "start 1", "stop 1"]
    assert taking.unchecked == {}


def test_a_client_that_left_early_is_told_to_the_engine_until_it_is_done(served):
    module = served("tensorrt_llm_bls", "model")
    model = module.TritonPythonModel()
    model.lock, model.running = threading.Lock(), {"1": SimpleNamespace(is_cancelled=lambda: True)}

    assert [model.is_left("1"), model.is_left("1")] == [True, True]
    del model.running["1"]
    assert not model.is_left("1")


def test_requests_beyond_the_threads_and_their_line_are_refused_at_once(served, request_of):
    module = served("tensorrt_llm_bls", "model")
    model, sent, may_end = module.TritonPythonModel(), [], threading.Event()
    model.pool, model.lock, model.count, model.most = module.ThreadPoolExecutor(1), threading.Lock(), 0, 3
    model.serve = lambda request, sender: may_end.wait(20)  # noqa: ARG005 - its own names
    sender = SimpleNamespace(send=lambda answer, flags: sent.append((answer.error.message(), answer.error.code, flags)))
    for _ in range(4):
        model.begin(request_of(), sender)
    assert sent == [("Exceeds maximum queue size: 3 requests run and wait already.", "unavailable", module.FINAL)]
    may_end.set()
    model.pool.shutdown(wait=True)
    assert model.count == 0


@pytest.mark.parametrize(
    ("tokens", "length", "said"),
    [
        ([[[5, -1]]], 2, "TOKENS_BATCH has the token -1; tokens are 0 and above."),
        ([[[5, 6]]], -1, "SEQUENCE_LENGTH is -1; it must be 0 or more."),
    ],
)
def test_what_is_no_token_is_refused_in_a_sentence(served, request_of, tokens, length, said):
    module = served("postprocessing", "model")
    model = module.TritonPythonModel()
    model.leavers, model.detokenizer = None, SimpleNamespace(text=lambda _: "x")
    answer = model.answer(request_of(TOKENS_BATCH=tokens, SEQUENCE_LENGTH=[[length]]))
    assert (answer.error.message(), answer.error.code) == (said, "invalid")
