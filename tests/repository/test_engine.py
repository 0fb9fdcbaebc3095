"""The CPU engine's thread and its guides: nobody is left to wait, and nothing is left behind."""

import os
import threading
from collections import deque
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
        self.failures.append(error.message())


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
    module.pb_utils.TritonError.UNAVAILABLE = "unavailable"
    model = module.TritonPythonModel()
    config = '{"dynamic_batching": {"default_queue_policy": {"max_queue_size": 2}}}'
    model.engine, model.unchecked, model.most_waiting = engine, deque(), module.queue_size({"model_config": config})
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


def test_a_guide_that_takes_too_long_leaves_neither_a_process_nor_a_folder(guides, tmp_path):
    for _ in range(2):
        with pytest.raises(guides.module.Refused, match=r"takes more than 0\.2 s"):
            guides.check("regex", "slow")
        assert guides.checker is None
        assert list((tmp_path / "scratch").iterdir()) == []
    assert guides.known == {}  # a busy machine's verdict is not for ever
    guides.check("regex", "a")
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    guides.checker.kill()
    guides.checker.wait()
    guides.check("regex", "b")
    assert len(list((tmp_path / "scratch").iterdir())) == 1


def test_a_client_that_left_early_is_told_to_the_engine_until_it_is_done(served):
    module = served("tensorrt_llm_bls", "model")
    model = module.TritonPythonModel()
    model.lock, model.running = threading.Lock(), {"1": SimpleNamespace(is_cancelled=lambda: True)}

    assert [model.is_left("1"), model.is_left("1")] == [True, True]
    del model.running["1"]
    assert not model.is_left("1")
