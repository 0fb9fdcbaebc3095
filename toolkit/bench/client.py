"""A load test from its warm-up to its records: one phase after the other, in one process or in several."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import gc
import math
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from toolkit.bench import vocabulary
from toolkit.bench.answer import Answer, SendFailed
from toolkit.bench.load import Load
from toolkit.bench.observing import Observer, ReadGpus
from toolkit.bench.runs import Outcome, Run, Watch, unwatched
from toolkit.bench.session import Arrival, Ask, Protocol, Session
from toolkit.bench.workers import SNAPSHOT_EVERY_S, Workers
from toolkit.bench.workload import Plan
from toolkit.errors import ServerError, UsageError
from toolkit.specs import LoadProfile, Progress, no_progress, to_json

#: Warm-up prompts must not be in the server's prefix cache when their measured twins arrive.
WARMUP_SEED = 1_000_003
#: Of prompts with which the server is asked what it adds to each: two lengths tell a template from another tokenizer.
PROBE_TOKENS = (16, 64)
#: A process that computes for more of its time sends late.
COMFORTABLE_SHARE = 0.5
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Client:
    """One load test: what is sent, and who is told."""

    def __init__(
        self,
        profile: LoadProfile,
        *,
        report: Progress = no_progress,
        watch: Watch = unwatched,
        read_gpus: ReadGpus | None = None,
    ) -> None:
        self.profile = profile
        self.observer = Observer(profile.metrics_url, read_gpus=read_gpus)
        self._report, self._watch = report, watch
        self._words: vocabulary.Vocabulary | None = None
        self._added = 0

    async def learn_lengths(self, session: Session) -> None:
        """Read the tokenizer, and find out what the server adds to each prompt."""
        if self.profile.tokenizer and not self.profile.prompts:
            self._words = vocabulary.read(Path(self.profile.tokenizer))
            self._added = await added_tokens(self.profile, session, self._words)

    def plan(self, profile: LoadProfile) -> Plan:
        """Make the requests of a phase, as far as they can be expected."""
        plan = Plan(profile, self._words, added_tokens=self._added)
        plan.prepare()
        return plan

    async def phase(self, load: Load | Workers) -> Outcome:
        """Run a phase to its end; Ctrl-C ends it and keeps what was measured."""
        ticker = asyncio.ensure_future(self._tick(load))
        gc.collect()
        gc.freeze()  # prompts and plans: nothing to look through while requests are timed
        with _interruptible(load):
            try:
                return await load.run()
            finally:
                gc.unfreeze()
                ticker.cancel()
                self._tell(load)

    async def _tick(self, load: Load | Workers) -> None:
        while True:
            self._tell(load)
            await asyncio.sleep(SNAPSHOT_EVERY_S)

    def _tell(self, load: Load | Workers) -> None:
        seen = replace(load.snapshot(), server=self.observer.latest)
        self._report(seen.step, seen.done, seen.total)
        self._watch(seen)


def warm_up_of(profile: LoadProfile) -> LoadProfile:
    """Return the closed loop that goes before: as many requests as asked for, of other prompts."""
    return replace(
        profile,
        requests=profile.warmup_requests,
        duration_s=None,
        seed=profile.seed + WARMUP_SEED,
        arrival="closed",
        stages=(),
        is_capped=False,
        ramp_s=0.0,
        cancel_share=0.0,
        turns="",
        concurrency=min(profile.concurrency, profile.warmup_requests),
    )


async def measured(client: Client, protocol: Protocol, arrival: Arrival) -> Run:
    """Connect, warm up, run the profile and return what happened."""
    profile = client.profile
    session = await protocol.connect(profile)
    try:
        await client.learn_lengths(session)
        warm = None
        if profile.warmup_requests:
            warming = client.plan(warm_up_of(profile))
            warm = await client.phase(Load(warming, session, arrival, step="warm-up"))
            _need_one_answer(profile, warm)
        plan, count = client.plan(profile), processes_for(profile, warm)
        if count == 1:
            return await _run(client, session, Load(plan, session, arrival, step="load test"))
        async with Workers(plan, protocol, arrival, step="load test", count=count) as crew:
            return await _run(client, session, crew)
    finally:
        await session.close()


async def _run(client: Client, session: Session, load: Load | Workers) -> Run:
    profile = client.profile
    earlier = await session.statistics()
    started_at = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
    client.observer.start()
    done = await client.phase(load)
    observed = client.observer.stop()
    later = None if done.stop_reason else await session.statistics()
    models = (
        {name: counts.since(earlier[name]) if name in earlier else counts for name, counts in later.items()}
        if earlier is not None and later is not None
        else None
    )
    duration_s = max(done.duration_s, 1e-9)
    return Run(
        profile=replace(profile, model=session.facts.model),
        records=done.records,
        started_at=started_at,
        duration_s=duration_s,
        is_interrupted=done.is_interrupted,
        stop_reason=done.stop_reason,
        mean_in_flight=done.busy_s / duration_s,
        client_cpu_s=done.cpu_s,
        client_processes=done.processes,
        clock_at_start=done.clock_at_start,
        is_input_counted=session.facts.has_input_count,
        server={**to_json(session.facts), "models": to_json(models)},
        observed=observed,
    )


async def added_tokens(profile: LoadProfile, session: Session, words: vocabulary.Vocabulary) -> int:
    """Return how many tokens the server adds to a prompt; 0 where it does not count them."""
    added = []
    for tokens in PROBE_TOKENS:
        answer, prompt = Answer(), words.made(seed=profile.seed, index="probe", tokens=tokens)
        ask = Ask(request_id="probe", prompt=prompt, max_tokens=1, seed=0)
        try:
            await asyncio.wait_for(session.send(ask, answer), profile.timeout_s)
        except (SendFailed, asyncio.TimeoutError):
            return 0  # what goes wrong is for the measurement to say
        if answer.input_tokens is None:
            return 0
        added.append(answer.input_tokens - tokens)
    if added[0] < 0 or len(set(added)) > 1:
        counts = [tokens + more for tokens, more in zip(PROBE_TOKENS, added, strict=True)]
        raise UsageError(
            f"The server counts {counts[0]} and {counts[1]} tokens where {profile.tokenizer} counts {PROBE_TOKENS[0]} "
            f"and {PROBE_TOKENS[1]}.",
            hint="Give the tokenizer of the model that is served with --tokenizer DIR.",
        )
    if not profile.isl_lengths and added[0] >= profile.isl:
        raise UsageError(
            f"The server adds {added[0]} tokens to every prompt: none can have {profile.isl}.",
            hint=f"Give --isl {added[0] + 1} or more.",
        )
    return added[0]


def processes_for(profile: LoadProfile, warm: Outcome | None) -> int:
    """Return how many client processes to use: as many as asked for, or as the warm-up's CPU time says."""
    slots = 1 if profile.is_capped else profile.concurrency if not profile.is_open else profile.processes or 64
    if profile.processes:
        return max(1, min(profile.processes, slots))
    if warm is None or not warm.records:
        return 1
    cores = len(os.sched_getaffinity(0))
    if urlsplit(profile.url).hostname in LOOPBACK:
        cores //= 2  # the server needs the others
    share = warm.cpu_s / warm.duration_s
    if profile.is_open:
        fastest = max((max(stage.start_rps, stage.end_rps) for stage in profile.stages), default=0.0)
        share = warm.cpu_s / len(warm.records) * fastest
    return max(1, min(math.ceil(share / COMFORTABLE_SHARE), cores, slots))


def _need_one_answer(profile: LoadProfile, warm: Outcome) -> None:
    if warm.is_interrupted:
        raise KeyboardInterrupt
    if all(record.outcome != "ok" for record in warm.records):
        raise ServerError(
            f"No warm-up request to {profile.model} at {profile.url} was answered: {warm.records[-1].message}",
            hint="See `trtk logs`; `--warmup 0` measures a failing server all the same.",
        )


@contextlib.contextmanager
def _interruptible(load: Load | Workers) -> Iterator[None]:
    """Make Ctrl-C end the phase, so that what was measured is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, load.interrupt)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
