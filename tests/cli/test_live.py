"""What a load test shows while it goes: the last half minute as lines of bars, in 80 columns."""

import io

from rich.console import Console

from toolkit.bench import Snapshot
from toolkit.cli import live


def seen(elapsed_s, tokens, *, step="load test", failed=0, ttft_ms=50.0):
    return Snapshot(
        step=step, elapsed_s=elapsed_s, done=elapsed_s, total=60.0, completed=int(10 * elapsed_s), in_flight=8,
        failed=failed, output_tokens=tokens, ttft_p50_ms=ttft_ms,
        server={"requests_active": 8.0, "requests_waiting": 3.0, "kv_fraction": 0.456, "gpu_power_w": None},
    )  # fmt: skip


def shown(snapshot, history):
    out = io.StringIO()
    Console(file=out, width=80).print(live.panel(snapshot, history))
    return out.getvalue()


def test_bars_run_from_zero_to_the_highest():
    assert live.sparkline([0.0, 7.0, None, 3.0]) == "▁█ ▄"
    assert live.sparkline([0.0, 0.0]) == "▁▁"
    assert live.sparkline([]) == ""


def test_the_history_has_a_column_for_every_half_second_and_no_more_than_fit():
    history = live.History()
    for quarter in range(4 * 40):
        history.with_this(seen(quarter / 4, 100 * (quarter // 4)))
    assert len(history.tokens_per_s) == live.COLUMNS
    assert sum(history.tokens_per_s) / live.COLUMNS == 100.0


def test_another_phase_begins_anew():
    history = live.History()
    history.with_this(seen(5.0, 500, step="warm-up"))
    history.with_this(seen(0.5, 10))
    assert list(history.tokens_per_s) == [20.0]


def test_the_display_fits_and_says_what_is_going_on():
    history = live.History()
    for second in range(60):
        history.with_this(seen(float(second), 120 * second, failed=3))
    lines = shown(seen(30.0, 3600, failed=3), history).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert set(lines[1].strip()) <= set("━╺╸")
    text = "\n".join(lines)
    for said in (
        "load test",
        "tokens/s",
        "120",
        "50 ms",
        "in flight",
        "30 s",
        "failed",
        "█",
        "8 active  3 waiting  KV cache 46%",
    ):
        assert said in text
