"""Places are given in turn, to those who still want them."""

import asyncio

import pytest

from toolkit.gateway.admission import Admission
from toolkit.gateway.config import Limits
from toolkit.gateway.refusals import Refusal


def run(test):
    asyncio.run(asyncio.wait_for(test, 20))


def lined_up(admission, order, *names):
    """Begin requests of keys, one after the other; each notes its name when it gets a place."""

    async def one(name):
        async with admission.place(name[0]):
            order.append(name)
            await asyncio.sleep(0)

    return [asyncio.ensure_future(one(name)) for name in names]


def test_a_long_line_of_one_key_does_not_hold_up_the_next_key():
    async def test():
        admission, order = Admission(Limits(running=1, waiting=8)), []
        async with admission.place("x"):
            tasks = lined_up(admission, order, "a1", "a2", "a3", "b1", "c1", "b2")
            await asyncio.sleep(0)
            assert (admission.running, admission.waiting) == (1, 6)
        await asyncio.gather(*tasks)
        assert order == ["a1", "b1", "c1", "a2", "b2", "a3"]
        assert (admission.running, admission.waiting) == (0, 0)

    run(test())


def test_as_many_run_as_may():
    async def test():
        admission, order = Admission(Limits(running=2, waiting=8)), []
        async with admission.place("x"), admission.place("x"):
            tasks = lined_up(admission, order, "a1")
            await asyncio.sleep(0.01)
            assert order == []
        await asyncio.gather(*tasks)
        assert (order, admission.running) == (["a1"], 0)

    run(test())


def test_a_full_line_is_refused_for_its_key_alone():
    async def test():
        admission, order = Admission(Limits(running=1, waiting=1)), []
        async with admission.place("x"):
            tasks = lined_up(admission, order, "a1", "b1")
            await asyncio.sleep(0)
            with pytest.raises(Refusal, match="1 run, and 1 of your requests wait already") as caught:
                async with admission.place("a"):
                    pass
            assert caught.value.retry_after_s > 0
        await asyncio.gather(*tasks)
        assert order == ["a1", "b1"]

    run(test())


def test_who_waits_too_long_or_leaves_loses_nobody_elses_place():
    async def test():
        admission, order = Admission(Limits(running=1, waiting=8, waiting_s=0.05)), []
        async with admission.place("x"):
            tasks = lined_up(admission, order, "a1", "b1")
            await asyncio.sleep(0)
            tasks[1].cancel()
            with pytest.raises(Refusal, match=r"no place became free in 0\.05 s"):
                await tasks[0]
        assert (order, admission.running, admission.waiting) == ([], 0, 0)
        async with admission.place("c"):
            assert admission.running == 1

    run(test())


def test_a_place_that_comes_to_somebody_who_just_left_goes_on():
    async def test():
        admission, order = Admission(Limits(running=1, waiting=8)), []
        async with admission.place("x"):
            tasks = lined_up(admission, order, "a1", "b1")
            await asyncio.sleep(0)
        tasks[0].cancel()  # its turn was given, and it has not run yet
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (order[-1], admission.running) == ("b1", 0)

    run(test())
