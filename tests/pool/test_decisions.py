"""The decisions of a pool: what holds whatever happens, and what is decided in plain cases."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.pool import decisions
from toolkit.pool.decisions import BROKEN, FAILED, READY, UNLOADED, Load, Model, Pool, Refuse, Unload, Wait, decide

RESIDENCY_S = 30.0


def model(name, size, **changes):
    return Model(name=name, size_bytes=size, **changes)


def pool(*models, limit=10):
    return Pool(models=models, limit_bytes=limit, min_residency_s=RESIDENCY_S)


def ready(name, size, **changes):
    return model(name, size, state=READY, **changes)


def test_a_wanted_model_is_loaded_where_there_is_room():
    assert decide(pool(ready("a", 4), model("b", 6, waiting_since=1.0)), 100.0) == Load(name="b")


def test_nothing_is_done_where_nobody_waits():
    assert decide(pool(ready("a", 4), model("b", 6)), 100.0) == Wait()


def test_one_thing_at_a_time_is_loaded_or_unloaded():
    for state in (decisions.LOADING, decisions.UNLOADING):
        assert decide(pool(model("a", 1, state=state), model("b", 1, waiting_since=1.0)), 100.0) == Wait()


def test_the_least_worth_leaves_and_no_more_of_them_than_needed():
    small, large = ready("small", 1, worth=1.0), ready("large", 6, worth=2.0)
    kept = ready("kept", 3, worth=9.0)

    decided = decide(pool(small, large, kept, model("new", 6, waiting_since=1.0)), 100.0)

    assert decided == Unload(name="large", why="room for new")


def test_a_model_stays_for_its_minimum_residency():
    young = ready("young", 10, resident_since=90.0)

    assert decide(pool(young, model("new", 6, waiting_since=1.0)), 100.0) == Wait(until=120.0)
    assert decide(pool(young, model("new", 6, waiting_since=1.0)), 120.0) == Unload(name="young", why="room for new")


def test_busy_models_drain_and_the_choice_is_kept():
    busy = [ready(name, 5, in_flight=1, worth=worth) for name, worth in (("a", 1.0), ("b", 2.0))]
    new = model("new", 5, waiting_since=1.0)

    first = decide(pool(*busy, new), 100.0)
    draining = [dataclasses.replace(busy[0], is_draining=True, worth=3.0), busy[1]]

    assert first == Wait(draining=frozenset("a"))
    assert decide(pool(*draining, new), 101.0) == first
    assert decide(pool(dataclasses.replace(draining[0], in_flight=0), busy[1], new), 102.0) == Unload(
        name="a", why="room for new"
    )


def test_an_idle_model_leaves_rather_than_a_busy_one_that_is_worth_less():
    busy, idle = ready("busy", 5, in_flight=1, worth=1.0), ready("idle", 5, worth=2.0)

    assert decide(pool(busy, idle, model("new", 5, waiting_since=1.0)), 100.0) == Unload(
        name="idle", why="room for new"
    )


def test_what_does_not_fit_beside_pinned_models_is_refused_with_the_numbers():
    pinned = ready("pinned", 6, is_pinned=True)

    assert decide(pool(pinned, ready("a", 2), model("new", 5, waiting_since=1.0)), 100.0) == Refuse(
        name="new", needed_bytes=5, available_bytes=4
    )


def test_a_pinned_model_is_loaded_before_anybody_asks():
    assert decide(pool(model("a", 5, is_pinned=True), model("b", 5, waiting_since=1.0)), 100.0) == Load(name="a")


def test_who_waited_longest_is_first():
    models = model("a", 5, waiting_since=8.0), model("b", 5, waiting_since=7.0)

    assert decide(pool(*models), 100.0) == Load(name="b")


def test_a_failed_model_is_tried_again_only_after_its_time():
    failed = model("a", 5, state=FAILED, waiting_since=1.0, retry_at=110.0)

    assert decide(pool(failed), 100.0) == Wait(until=110.0)
    assert decide(pool(failed, model("b", 5, waiting_since=2.0)), 100.0) == Load(name="b")
    assert decide(pool(failed), 110.0) == Load(name="a")


def test_a_model_whose_process_died_is_unloaded_whatever_its_residency_and_pin():
    broken = model("a", 5, state=BROKEN, resident_since=99.0, is_pinned=True)

    assert decide(pool(broken), 100.0) == Unload(name="a", why="its process died")
    assert decide(pool(dataclasses.replace(broken, in_flight=1)), 100.0) == Wait()


def test_worth_is_load_time_for_each_byte_above_the_floor():
    gib = decisions.GIB
    assert decisions.worth(3.0, load_s=8.0, size_bytes=2 * gib) == pytest.approx(7.0)
    assert decisions.worth(0.0, load_s=8.0, size_bytes=gib) > decisions.worth(0.0, load_s=8.0, size_bytes=2 * gib)


class World:
    """A device that does what is decided, instantly but for the time that passes."""

    def __init__(self, sizes, limit, pins):
        self.limit, self.now, self.floor = limit, 0.0, 0.0
        self.models = {
            name: model(name, size, is_pinned=name in pins) for name, size in zip("abcdef", sizes, strict=False)
        }
        self.waiting = {name: [] for name in self.models}
        self.running = []  # (name, ends at)
        self.served = 0

    def set(self, name, **changes):
        self.models[name] = dataclasses.replace(self.models[name], **changes)

    def ask(self, name, duration):
        self.waiting[name].append((self.now, duration))
        self.lend(name)

    def lend(self, name):
        found = self.models[name]
        if found.state == READY and not found.is_draining:
            for _, duration in self.waiting[name]:
                self.running.append((name, self.now + duration))
                worth = decisions.worth(self.floor, load_s=2.0, size_bytes=found.size_bytes)
                self.set(name, in_flight=self.models[name].in_flight + 1, worth=worth)
            self.waiting[name].clear()
        since = min((at for at, _ in self.waiting[name]), default=None)
        self.set(name, waiting_since=since)

    def act(self):
        """Do the next step; return when the one after it may be due."""
        now = Pool(models=tuple(self.models.values()), limit_bytes=self.limit, min_residency_s=RESIDENCY_S)
        decided = decide(now, self.now)
        draining = getattr(decided, "draining", frozenset())
        for name in self.models:
            self.set(name, is_draining=name in draining)
        if isinstance(decided, Load):
            assert self.models[decided.name].state in {UNLOADED, FAILED}
            self.set(decided.name, state=READY, resident_since=self.now)
        elif isinstance(decided, Unload):
            leaving = self.models[decided.name]
            assert (leaving.state, leaving.in_flight, leaving.is_pinned) == (READY, 0, False)
            assert self.now >= leaving.resident_since + RESIDENCY_S
            self.floor = max(self.floor, leaving.worth)
            self.set(decided.name, state=UNLOADED, is_draining=False)
        for name in self.models:
            self.lend(name)
        after = Pool(models=tuple(self.models.values()), limit_bytes=self.limit, min_residency_s=RESIDENCY_S)
        assert after.held_bytes <= self.limit
        return self.now if not isinstance(decided, Wait) else decided.until

    def finish(self, until):
        for name, at in [one for one in self.running if one[1] <= until]:
            self.running.remove((name, at))
            self.set(name, in_flight=self.models[name].in_flight - 1)
            self.served += 1


@st.composite
def worlds(draw):
    limit = draw(st.integers(4, 20))
    sizes = draw(st.lists(st.integers(1, limit), min_size=1, max_size=6))
    pins, left = set(), limit - max(sizes)
    for name, size in zip("abcdef", sizes, strict=False):
        if size <= left and draw(st.booleans()):
            pins.add(name)
            left -= size
    asked = st.tuples(st.sampled_from("abcdef"[: len(sizes)]), st.floats(0, 20), st.floats(0.1, 40))
    return World(sizes, limit, pins), draw(st.lists(asked, max_size=40))


@settings(max_examples=80)
@given(worlds())
def test_everybody_is_served_in_the_end_and_the_limit_always_holds(made):
    world, asked = made
    arrivals = []
    at = 0.0
    for name, gap, duration in asked:
        at += gap
        arrivals.append((at, name, duration))
    for _ in range(20_000):
        due = world.act()
        moments = [at for _, at in world.running] + [at for at, _, _ in arrivals[:1]]
        if due is not None:
            moments.append(max(due, world.now))
        if not moments:
            break
        world.now = min(moments)
        world.finish(world.now)
        while arrivals and arrivals[0][0] <= world.now:
            _, name, duration = arrivals.pop(0)
            world.ask(name, duration)
    assert world.served == len(asked)
    assert not any(world.waiting.values())


@settings(max_examples=40)
@given(st.integers(1, 5), st.floats(0.5, 5.0))
def test_a_model_that_is_always_busy_does_not_keep_another_out(streams, duration):
    """New requests for `busy` come all the time, each before the last one ends."""
    world = World([6, 6], 10, set())
    world.ask("a", duration)
    asked_at = None
    while world.now < 300.0:
        world.act()
        if asked_at is None and world.now > 10.0:
            asked_at = world.now
            world.ask("b", 1.0)
        world.now += duration / (streams + 1)
        world.finish(world.now)
        world.ask("a", duration)
        if asked_at and not world.waiting["b"]:
            assert world.now <= max(asked_at, RESIDENCY_S) + 3 * duration + 1.0
            return
    raise AssertionError("b was never lent")
