"""Conversations: every turn sends what was said before, after a time to think; they are counted as asked for."""

import itertools

import pytest

from toolkit import bench
from toolkit.bench import workload
from toolkit.bench.latency import ttft_ms
from toolkit.bench.report import html
from toolkit.errors import UsageError
from toolkit.specs import LoadProfile, Stage


def run(served, scheme="grpc", **changes):
    profile = {"url": served.url(scheme), "concurrency": 2, "requests": 12, "osl": 4, "isl": 6, "turns": "3"}
    profile |= {"model": ""} if scheme == "openai+http" else {}
    return bench.run(LoadProfile(**(profile | changes)))


def by_conversation(found):
    """Return the records of each conversation in the order of its turns."""
    ordered = sorted(found.records, key=lambda record: (record.request_id.split(".")[0], record.turn))
    return [list(group) for _, group in itertools.groupby(ordered, key=lambda record: record.request_id.split(".")[0])]


def test_a_chat_sends_each_question_with_the_answers_that_it_got(serve):
    served = serve(is_asked_logged=True)
    plan = workload.Plan(LoadProfile(url="grpc://x", requests=3, isl=6, osl=4, turns="3"))[0]
    found = run(served, "openai+http", concurrency=1, requests=3)
    said = [served.truth()[record.request_id]["asked"] for record in found.records]
    questions = [{"role": "user", "content": wish.prompt} for wish in (plan, *plan.later)]
    answer = {"role": "assistant", "content": "word word word word "}
    assert said == [
        [questions[0]],
        [questions[0], answer, questions[1]],
        [questions[0], answer, questions[1], answer, questions[2]],
    ]
    assert len({question["content"] for question in questions}) == 3


@pytest.mark.parametrize(("scheme", "is_streaming"), [("grpc", True), ("http", True), ("http", False), ("grpc", False)])
def test_a_server_of_one_text_gets_all_of_it(serve, scheme, is_streaming):
    served = serve(is_asked_logged=True, is_decoupled=False)
    found = run(served, scheme, concurrency=1, requests=3, is_streaming=is_streaming)
    first, second, third = (served.truth()[record.request_id]["asked"] for record in found.records)
    assert second.startswith(f"{first}\nword word word word \n")
    assert third.startswith(f"{second}\nword word word word \n")


def test_requests_are_counted_and_a_conversation_is_cut_where_they_end(serve):
    found = run(serve(ttft_s=0.01), requests=10, concurrency=2)
    assert [record.outcome for record in found.records] == ["ok"] * 10
    lengths = sorted(len(each) for each in by_conversation(found))
    assert lengths in ([1, 3, 3, 3], [2, 2, 3, 3])  # two at once, whose last two share what is left
    assert {tuple(record.turn for record in each)[:1] for each in by_conversation(found)} == {(1,)}


def test_a_turn_is_due_when_its_user_has_thought(serve):
    found = run(serve(ttft_s=0.02), requests=6, think_s="0.3")
    for each in by_conversation(found):
        for before, after in itertools.pairwise(each):
            assert after.scheduled_s - before.end_s == pytest.approx(0.3, abs=1e-6)
            assert after.sent_s >= after.scheduled_s
    assert max(ttft_ms(record) for record in found.records) < 250  # thinking is nobody's latency
    assert found.mean_in_flight < 1  # nor is it in flight


def test_conversations_arrive_at_the_rate_and_their_turns_follow(serve):
    stages = (Stage(start_rps=10, end_rps=10),)
    found = run(serve(ttft_s=0.05), arrival="constant", stages=stages, requests=30, think_s="0.1")
    starts = sorted(each[0].scheduled_s for each in by_conversation(found))
    assert starts == pytest.approx([0.1 * number for number in range(1, len(starts) + 1)])
    assert len(found.records) == 30
    assert len(starts) < 20


def test_the_end_of_a_duration_is_not_thought_through(serve):
    found = run(serve(), requests=None, duration_s=0.5, think_s="30")
    assert found.duration_s < 2
    assert {record.turn for record in found.records} == {1}


def test_a_failed_turn_ends_its_conversation(serve):
    found = run(serve(fail_every=2), concurrency=1, requests=6)
    assert [(record.turn, record.outcome) for record in found.records] == [(1, "ok"), (2, "failed")] * 3


def test_turns_and_thinking_follow_their_distributions_and_one_seed_makes_the_same():
    profile = LoadProfile(url="grpc://x", requests=900, isl=4, osl=3, turns="uniform:1,5", think_s="uniform:1,3")
    plan, again = workload.Plan(profile), workload.Plan(profile)
    again.prepare()
    made = [plan[index] for index in range(300)]
    assert made == [again[index] for index in range(300)]
    assert {1 + len(wish.later) for wish in made} == {1, 2, 3, 4, 5}
    thoughts = [turn.think_s for wish in made for turn in wish.later]
    assert 1.9 < sum(thoughts) / len(thoughts) < 2.1
    assert [turn.input_tokens for turn in next(wish for wish in made if len(wish.later) == 3).later] == [11, 18, 25]


def test_the_report_has_each_turn_by_itself(serve):
    found = run(serve(added_tokens=0, ttft_s=0.02), "openai+http", concurrency=1, requests=12, isl=10, osl=3)
    document = bench.summarise(found, {}).document
    # Each turn adds a question and an answer of three words; a full stop is a token to the load tester, no word here.
    rows = [(row["turn"], row["requests"], row["ttft_ms"]["p50"] > 20) for row in document["turns"]]
    assert rows == [(1, 4, True), (2, 4, True), (3, 4, True)]
    given = [row["mean_input_tokens"] for row in document["turns"]]
    assert given == pytest.approx([9, 9 + 3 + 9, 9 + 3 + 9 + 3 + 9])
    assert "Turns of conversations" in html(bench.summarise(found, {}))
    assert bench.summarise(run(serve(), turns=""), {}).document["turns"] == []


def test_a_trace_has_no_turns_to_add(serve):
    from toolkit.specs import TraceRow

    with pytest.raises(UsageError, match="A trace says itself what is sent"):
        run(serve(), trace=(TraceRow(due_s=None, input_tokens=1, output_tokens=1),))
