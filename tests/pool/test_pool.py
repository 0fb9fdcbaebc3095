"""The pool at work on a Triton that does what a test says: who gets a model, who is told to come again, and why."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from toolkit.pool import journal, loading, pool, snapshot
from toolkit.pool.control import ControlError
from toolkit.pool.lending import NotHad

MIB = 1 << 20


@pytest.fixture(autouse=True)
def _quick_watch(monkeypatch):
    monkeypatch.setattr(pool, "WATCH_S", 0.02)


@contextlib.asynccontextmanager
async def running(made):
    made.start()
    try:
        yield made
    finally:
        await made.close()


def events(made, *fields):
    return [tuple(event.get(field) for field in fields) for event in journal.read(Path(made.config.journal))]


async def use(made, name, seconds=0.0, *, key=""):
    async with made.lend(name, key=key) as triton_model:
        await asyncio.sleep(seconds)
        return triton_model


async def until(is_so):
    for _ in range(500):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not come to that within five seconds")


def test_many_requests_for_one_model_load_it_once(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"))
        async with running(made):
            answers = await asyncio.gather(*(use(made, "a") for _ in range(30)))
        return answers, triton.calls

    assert asyncio.run(run()) == (["a"] * 30, ["load a"])


def test_mixed_requests_for_three_models_all_come_to_their_turn_within_the_limit(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), model("b"), model("c"), is_measured=True)
        async with running(made):
            names = ["abc"[number * 7 % 3] for number in range(90)]
            answers = await asyncio.gather(*(use(made, name, 0.002 * (at % 5)) for at, name in enumerate(names)))
        return names, answers, made, triton

    names, answers, made, triton = asyncio.run(run())

    assert answers == names
    assert triton.most_bytes <= made.config.memory_bytes
    replayed = journal.replayed(Path(made.config.journal))
    assert {name for name, state in replayed.items() if state == "ready"} == triton.ready
    for event in journal.read(Path(made.config.journal)):
        assert event["event"] in {"started", "ended", "loaded", "unloaded"} or event["why"]


def test_a_model_with_a_request_in_flight_stays_and_drains_for_who_waits(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), model("b"), memory_mib=100)
        async with running(made):
            first = asyncio.create_task(use(made, "a", 0.3))
            await until(lambda: triton.ready == {"a"})
            second = asyncio.create_task(use(made, "b"))
            await until(lambda: made.entries()[0].is_draining)
            late = asyncio.create_task(use(made, "a"))  # comes after b, and is served after it
            await asyncio.sleep(0.05)
            assert triton.ready == {"a"}
            await asyncio.gather(first, second, late)
        return triton.calls

    assert asyncio.run(run()) == ["load a", "unload a", "load b", "unload b", "load a"]


def test_a_full_queue_is_refused_with_the_time_a_cold_start_takes(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), queue=2)
        triton.gate.clear()
        async with running(made):
            made.entries()[0].load_s = 40.0
            waiting = [asyncio.create_task(use(made, "a")) for _ in range(2)]
            await until(lambda: triton.calls)
            with pytest.raises(NotHad) as refused:
                await use(made, "a")
            triton.gate.set()
            await asyncio.gather(*waiting)
        return refused.value

    refused = asyncio.run(run())

    assert str(refused) == "2 of your requests wait for the model 'a' already."
    assert 35 < refused.retry_after_s <= 40


def test_a_full_queue_of_one_key_is_not_that_of_another(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), queue=2)
        triton.gate.clear()
        async with running(made):
            waiting = [asyncio.create_task(use(made, "a", key=key)) for key in ("hog", "hog", "other")]
            await until(lambda: triton.calls)
            with pytest.raises(NotHad):
                await use(made, "a", key="hog")
            waiting.append(asyncio.create_task(use(made, "a", key="third")))
            await until(lambda: len(made.entries()[0].waiting) == 4)
            triton.gate.set()
            return await asyncio.gather(*waiting)

    assert len(asyncio.run(run())) == 4


def test_who_waits_too_long_is_told_so_and_leaves_the_queue(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), queue_timeout_s=0.1)
        triton.gate.clear()
        async with running(made):
            with pytest.raises(NotHad) as refused:
                await use(made, "a")
            left = len(made.entries()[0].waiting)
            triton.gate.set()
            await until(lambda: triton.ready == {"a"})
            assert await use(made, "a") == "a"
        return str(refused.value), left

    said, left = asyncio.run(run())

    assert said == "The model 'a' was not loaded in 0.1 s: the device is busy with others."
    assert left == 0


def test_a_client_that_leaves_while_it_waits_holds_nothing(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"))
        triton.gate.clear()
        async with running(made):
            waiting = asyncio.create_task(use(made, "a"))
            await until(lambda: triton.calls)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            triton.gate.set()
            await until(lambda: made.entries()[0].state == "ready")
            return made.entries()[0].in_flight, len(made.entries()[0].waiting)

    assert asyncio.run(run()) == (0, 0)


def test_a_model_that_does_not_load_says_why_rests_and_leaves_the_others_alone(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), model("b"))
        triton.failing["a"] = "no weights"
        async with running(made):
            refusals = await asyncio.gather(*(use(made, "a") for _ in range(3)), return_exceptions=True)
            with pytest.raises(NotHad) as again:
                await use(made, "a")
            assert await use(made, "b") == "b"
            tried = triton.calls.count("load a")
            triton.failing.clear()
            made.entries()[0].retry_at = 0.0
            assert await use(made, "a") == "a"
        return refusals, again.value, tried, made

    refusals, again, tried, made = asyncio.run(run())

    sentence = "The model 'a' could not be loaded: no weights."
    assert [str(refusal) for refusal in refusals] == [sentence] * 3
    assert (str(again), tried) == (sentence, 1)
    assert 1 <= again.retry_after_s <= 2
    failed = [one for one in events(made, "event", "model", "why", "told", "retry_s") if one[0] == "load_failed"]
    assert failed == [("load_failed", "a", sentence, 3, 2.0)]


def test_a_load_that_failed_and_left_something_in_triton_keeps_its_memory_charged(pool_of, model, monkeypatch):
    monkeypatch.setattr(loading, "UNLOAD_TIMEOUT_S", 0.05)
    monkeypatch.setattr(loading, "DRAIN_TIMEOUT_S", 0.05)
    monkeypatch.setattr(loading, "UNLOAD_RETRY_S", 0.3)

    async def run():
        made, triton = pool_of(model("a"), model("b"), memory_mib=150)
        whole = triton.load

        async def load(name, *, timeout_s):
            await whole(name, timeout_s=timeout_s)
            if name == "a":  # Triton goes on with it
                raise ControlError("Deadline Exceeded")

        triton.load = load
        triton.stuck.add("a")
        async with running(made):
            with pytest.raises(NotHad, match=r"could not be loaded: Deadline Exceeded\."):
                await use(made, "a")
            await until(lambda: made.entries()[0].state == "broken")
            waiting = asyncio.create_task(use(made, "b"))
            await asyncio.sleep(0.1)
            before = list(triton.calls)
            triton.stuck.clear()
            assert await waiting == "b"
        return before, events(made, "event", "why")

    before, told = asyncio.run(run())

    assert "load b" not in before
    assert ("unload_failed", "Triton still has a") in told


def test_the_rest_after_a_failed_load_grows(model):
    from toolkit.pool.lending import Entry

    entry = Entry(model=model("a"))

    assert [entry.failed("why", now=0.0) for _ in range(9)] == [2, 4, 8, 16, 32, 64, 128, 256, 300]


def test_a_pinned_model_is_loaded_before_anybody_asks_and_never_unloaded(pool_of, model):
    async def run():
        made, triton = pool_of(model("a", is_pinned=True), model("b"), model("c"))
        async with running(made):
            await until(lambda: triton.ready == {"a"})
            for name in "bcbc":
                assert await use(made, name) == name
        return triton.calls

    calls = asyncio.run(run())

    assert calls[0] == "load a"
    assert "unload a" not in calls


def test_a_triton_that_was_started_again_is_asked_what_it_holds(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), model("b"))
        async with running(made):
            await use(made, "a")
            await use(made, "b")
            triton.is_away = True
            await until(lambda: not made._is_known)
            triton.ready = {"b"}
            triton.is_away = False
            await until(lambda: made.entries()[0].state == "unloaded")
            assert await use(made, "a") == "a"
        return made, triton.calls

    made, calls = asyncio.run(run())

    assert calls == ["load a", "load b", "load a"]
    assert ("lost", "a", "Triton was started again") in events(made, "event", "model", "why")


def test_a_pool_that_is_started_again_takes_over_what_is_loaded(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), model("b"))
        triton.ready = {"b"}
        async with running(made):
            assert await use(made, "b") == "b"
        return made, triton.calls

    made, calls = asyncio.run(run())

    assert calls == []
    assert [event for event in events(made, "event", "model") if event[1]] == [("found", "b")]


def test_a_model_whose_process_died_is_unloaded_and_loaded_again(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), is_measured=True)
        async with running(made):
            await use(made, "a")
            triton.pids["a"] += 1  # another process than the one that was loaded
            await until(lambda: "unload a" in triton.calls)
            assert await use(made, "a") == "a"
        return made, triton.calls

    made, calls = asyncio.run(run())

    assert calls == ["load a", "unload a", "load a"]
    assert [event for event in events(made, "event") if event[0] in {"broken", "unloaded"}] == [
        ("broken",),
        ("unloaded",),
    ]


def test_the_next_load_waits_until_the_memory_is_back(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), model("b"), memory_mib=100)
        async with running(made):
            await use(made, "a")
            triton.stuck.add("a")
            waiting = asyncio.create_task(use(made, "b"))
            await until(lambda: "unload a" in triton.calls)
            await asyncio.sleep(0.2)
            calls = list(triton.calls)
            triton.stuck.clear()
            triton.ready.discard("a")
            assert await waiting == "b"
        return calls

    assert asyncio.run(run()) == ["load a", "unload a"]


def test_a_model_that_grows_is_charged_with_what_it_takes_and_makes_room(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), model("b"), is_measured=True)
        async with running(made):
            await use(made, "a")
            await use(made, "b")
            triton.bytes_each = 130 * MIB
            await until(lambda: len(triton.ready) == 1)
        return made

    made = asyncio.run(run())

    happened = events(made, "event", "why")
    assert ("grew", None) in happened
    assert ("unload_begun", "over the limit") in happened
    assert json.loads(json.dumps(events(made, "size_bytes")))[-1] is not None


def test_a_measured_peak_corrects_the_size_of_the_next_load(pool_of, model):
    async def run():
        made, triton = pool_of(model("a"), is_measured=True)
        triton.bytes_each = 150 * MIB
        async with running(made):
            await use(made, "a")
        return made

    made = asyncio.run(run())
    again, _ = pool_of(model("a"))

    assert made.entries()[0].size_bytes == 150 * MIB
    assert again.entries()[0].size_bytes == 150 * MIB
    again._journal.close()


def test_the_snapshot_shows_what_each_model_does(pool_of, model):
    async def run():
        made, _ = pool_of(model("a"), model("b"), is_measured=True)
        async with running(made), made.lend("a"):
            await until(lambda: _shown(made)["in_flight"] == 1)
            return _shown(made)

    shown = asyncio.run(run())

    assert {key: shown[key] for key in ("name", "state", "size_bytes", "measured_bytes", "waiting", "loads")} == {
        "name": "a",
        "state": "ready",
        "size_bytes": 100 * MIB,
        "measured_bytes": 60 * MIB,
        "waiting": 0,
        "loads": 1,
    }


def _shown(made):
    document = snapshot.read(Path(made.config.snapshot))
    return document["models"][0] if document else {"in_flight": 0}


def test_a_model_that_is_not_served_is_no_key(pool_of, model):
    async def run():
        made, _ = pool_of(model("a"))
        async with running(made):
            with pytest.raises(KeyError):
                await use(made, "other")

    asyncio.run(run())
