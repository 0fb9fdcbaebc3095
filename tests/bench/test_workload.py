"""What requests say: lengths as asked for, shared beginnings, traces as written, clients that go."""

import json
import math
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit import bench
from toolkit.bench import lengths, traces, workload
from toolkit.errors import UsageError
from toolkit.specs import LoadProfile, TraceRow


def wishes(**changes):
    profile = LoadProfile(**({"url": "grpc://x", "requests": 400} | changes))
    plan = workload.Plan(profile)
    plan.prepare()
    return [plan[index] for index in range(profile.requests)]


def words(text):
    return len(text.replace(".", " .").split())


@pytest.mark.parametrize(
    ("text", "mean", "deviation"),
    [
        ("128", 128, 0),
        ("uniform:100,200", 150, 100 / math.sqrt(12)),
        ("normal:512,64", 512, 64),
        ("lognormal:400,0.5", 400 * math.exp(0.125), 400 * math.exp(0.125) * math.sqrt(math.exp(0.25) - 1)),
    ],
)
def test_lengths_follow_their_distribution(text, mean, deviation):
    drawn = [wish.input_tokens for wish in wishes(isl_lengths=text, requests=4000)]
    assert lengths.parse(text).mean == pytest.approx(mean)
    assert statistics.mean(drawn) == pytest.approx(mean, rel=0.03)
    assert statistics.pstdev(drawn) == pytest.approx(deviation, rel=0.08, abs=0.01)


def test_lengths_of_a_file_are_drawn_from_it(tmp_path):
    path = tmp_path / "lengths"
    path.write_text("10\n20\n30\n")
    drawn = [wish.max_tokens for wish in wishes(osl_lengths=f"file:{path}")]
    assert set(drawn) == {10, 20, 30}


@given(st.floats(1, 50), st.floats(0, 500))
def test_no_length_is_below_one(mean, deviation):
    assert all(wish.input_tokens >= 1 for wish in wishes(isl_lengths=f"normal:{mean},{deviation}", requests=20))


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "x",
        "1.5",
        "normal:5",
        "uniform:9,3",
        "zipf:1,2",
        "lognormal:0,1",
        "nan",
        "-3",
        "",
        "1e300",
        "lognormal:5,900",
    ],
)
def test_what_is_no_length_is_refused(text):
    with pytest.raises(UsageError, match="is no length in tokens"):
        lengths.parse(text)


@pytest.mark.parametrize("content", ["", "a", "0\n", "-3"])
def test_a_file_without_lengths_is_refused(tmp_path, content):
    path = tmp_path / "lengths"
    path.write_text(content)
    with pytest.raises(UsageError, match=str(path)):
        lengths.parse(f"file:{path}")


def test_prompts_begin_alike_as_far_as_they_were_told_to():
    made = [wish.prompt for wish in wishes(isl=100, shared_prefix=0.6, requests=20)]
    common = words(made[0][: next(i for i, pair in enumerate(zip(*made, strict=False)) if len(set(pair)) > 1)])
    assert {words(text) for text in made} == {100}
    assert 59 <= common <= 63
    assert len(set(made)) == 20


def test_one_seed_makes_the_same_requests():
    asked = {"isl_lengths": "normal:50,10", "osl_lengths": "normal:50,10", "cancel_share": 0.3, "requests": 30}
    assert wishes(seed=1, **asked) == wishes(seed=1, **asked) != wishes(seed=2, **asked)


MOONCAKE = [
    {"timestamp": 2000, "input_length": 1030, "output_length": 5, "hash_ids": [7, 8, 9]},
    {"timestamp": 1000, "input_length": 600, "output_length": 3, "hash_ids": [7, 4]},
]


def test_a_mooncake_trace_keeps_its_times_lengths_and_shared_blocks(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in MOONCAKE))
    rows = traces.read(path, speed=2)
    assert rows == (
        TraceRow(due_s=0.0, input_tokens=600, output_tokens=3, blocks=(7, 4)),
        TraceRow(due_s=0.5, input_tokens=1030, output_tokens=5, blocks=(7, 8, 9)),
    )
    first, second = wishes(trace=rows, arrival="trace", requests=2)
    assert (words(first.prompt), words(second.prompt)) == (600, 1030)
    assert (first.max_tokens, second.max_tokens) == (3, 5)
    assert first.prompt.split()[:460] == second.prompt.split()[:460]
    assert first.prompt.split()[480:] != second.prompt.split()[480:600]


def test_csv_traces_of_azure_and_burstgpt_are_read(tmp_path):
    azure, burst = tmp_path / "azure.csv", tmp_path / "burst.csv"
    azure.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    burst.write_text(
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n45,ChatGPT,1087,230,1317,Conversation log\n50,GPT-4,0,9,9,API log\n"
    )
    (first, second), found = traces.read(azure), traces.read(burst)
    assert (first.due_s, first.input_tokens, first.output_tokens) == (0.0, 374, 44)
    assert second.due_s == pytest.approx(4.314579)
    assert [(row.due_s, row.input_tokens, row.output_tokens) for row in found] == [(0.0, 472, 18), (40.0, 1087, 230)]


def test_sharegpt_gives_prompts_without_times(tmp_path):
    path = tmp_path / "share.json"
    turns = [{"from": "human", "value": "What is a monad?"}, {"from": "gpt", "value": "A" * 40}]
    path.write_text(json.dumps([{"id": "1", "conversations": turns}, {"id": "2", "conversations": turns[:1]}]))
    assert traces.read(path) == (TraceRow(due_s=None, input_tokens=4, output_tokens=10, prompt="What is a monad?"),)


def test_a_run_can_be_replayed_from_its_own_records(tmp_path, serve):
    served = serve(ttft_s=0.01)
    first = bench.run(LoadProfile(url=served.http, requests=6, concurrency=2, osl=4))
    bench.write(bench.summarise(first, {}), tmp_path)
    rows = traces.read(tmp_path / "requests.jsonl")
    again = bench.run(LoadProfile(url=served.http, requests=6, arrival="trace", trace=rows))
    wanted = sorted(record.scheduled_s for record in first.records)
    assert [record.scheduled_s for record in sorted(again.records, key=lambda r: r.scheduled_s)] == pytest.approx(
        [time - wanted[0] for time in wanted]
    )
    assert {record.output_tokens for record in again.records} == {4}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[1]",
        "a,b\n1,2\n",
        '{"timestamp": 1}',
        "TIMESTAMP,ContextTokens,GeneratedTokens\nx,1,1",
        "TIMESTAMP,ContextTokens,GeneratedTokens\nnan,1,1",
        '{"timestamp": 1e999, "input_length": 1, "output_length": 1}',
        '{"timestamp": 0, "input_length": "x", "output_length": 1}',
        '{"timestamp": 0, "input_length": 1e300, "output_length": 1}',
        '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}',
    ],
)
def test_what_is_no_trace_is_refused_by_name(tmp_path, content):
    path = tmp_path / "trace"
    path.write_text(content)
    with pytest.raises(UsageError, match=str(path)):
        traces.read(path)


@pytest.mark.parametrize("scheme", ["grpc", "http", "openai+http"])
def test_clients_that_leave_are_cancelled_and_the_others_are_whole(serve, scheme):
    served = serve(gap_s=0.002)
    profile = LoadProfile(url=served.url(scheme), requests=40, concurrency=4, osl=16, cancel_share=0.5)
    found = bench.run(profile if scheme != "openai+http" else LoadProfile(**{**vars(profile), "model": ""}))
    leaving = [wish.leaves_after for wish in wishes(osl=16, requests=40, cancel_share=0.5)]
    by_id = {record.request_id: record for record in found.records}
    for index, chunks in enumerate(leaving):
        record = by_id[f"0-{index}"]
        assert (record.outcome, record.chunks) == (("cancelled", chunks) if chunks else ("ok", 16))
    document = bench.summarise(found, {}).document
    assert document["requests"] == {
        "sent": 40, "ok": leaving.count(0), "failed": 0, "cancelled": 40 - leaving.count(0)
    }  # fmt: skip
