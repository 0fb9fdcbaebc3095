"""Three constants from measured loads, against servers whose constants are known."""

import dataclasses
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.plan.test_speed import setup
from toolkit import calibration, gpus, quant, speeds
from toolkit.calibration.fitting import workload_of
from toolkit.errors import UsageError
from toolkit.plan import speed
from toolkit.specs import Calibration, CalibrationPoint, Limits, Workload

TAKEN = calibration.Circumstances(engine="openvino", model="demo", date="2026-11-21", versions={"trtk": "0.1.0"})


def cpu_setup(recipe="int4"):
    spec = dataclasses.replace(
        setup().model,
        hidden_size=576,
        intermediate_size=1536,
        num_layers=30,
        num_heads=9,
        num_kv_heads=3,
        head_dim=64,
        vocab_size=49152,
    )
    found = setup(spec=spec, kv=40_000, max_batch_size=64, max_num_tokens=1024)
    return dataclasses.replace(found, gpu=gpus.get("cpu"), recipe=quant.get(recipe))


def simulated(server, truth, *, noise=0.0, seed=0, bend=lambda _: 1.0):
    """What a server with these constants would measure, a little off each time."""
    random_ = random.Random(seed)
    for load in calibration.LOADS:
        asked = CalibrationPoint(
            concurrency=load.concurrency, isl=load.isl, osl=load.osl, output_tps=1, ttft_ms=1, tpot_ms=1
        )
        said = speed.predict(server, workload_of(asked), constants=speeds.constants(), calibration=truth)
        slow = bend(load.concurrency)
        yield dataclasses.replace(
            asked,
            output_tps=said.output_tps.mid / slow * (1 + random_.gauss(0, noise)),
            ttft_ms=said.ttft_ms.mid * slow * (1 + random_.gauss(0, noise)),
            tpot_ms=said.tpot_ms.mid * slow * (1 + random_.gauss(0, noise)),
        )


def truth(gpu="cpu", **constants):
    """A calibration that stands for what is true."""
    found = {"compute_tflops": 0.3, "bandwidth_gb_per_s": 18.0, "step_ms": 3.0, **constants}
    return Calibration(
        gpu=gpu, engine="openvino", recipe="int4", model="demo", log_sd=0.03, points=(), date="", **found
    )


def fitted(server, points):
    return calibration.fitted(server, list(points), constants=speeds.constants(), taken=TAKEN)


def worst_error(server, found, points):
    said = [speed.predict(server, workload_of(p), constants=speeds.constants(), calibration=found) for p in points]
    return max(
        max(abs(one.output_tps.mid / point.output_tps - 1), abs(one.tpot_ms.mid / point.tpot_ms - 1))
        for one, point in zip(said, points, strict=True)
    )


@settings(max_examples=8)
@given(st.floats(0.05, 2.0), st.floats(5.0, 80.0), st.floats(0.3, 10.0))
def test_a_simulated_host_is_found_whatever_its_constants(tflops, gb_per_s, step_ms):
    server = cpu_setup()
    known = truth(compute_tflops=tflops, bandwidth_gb_per_s=gb_per_s, step_ms=step_ms)
    points = list(simulated(server, known))
    # One model alone hardly tells a slow memory from dear steps; both say the same of it.
    assert worst_error(server, fitted(server, points), points) < 0.08


def test_noisy_points_leave_a_prediction_within_fifteen_percent_of_another_run():
    server = cpu_setup()
    first, fresh = (list(simulated(server, truth(), noise=0.03, seed=seed)) for seed in (1, 2))
    assert worst_error(server, fitted(server, first), fresh) < 0.15


def test_what_three_constants_cannot_say_is_kept_beside_them():
    """Threads that compete make eight in flight dearer than a straight line would."""
    server = cpu_setup()
    points = list(simulated(server, truth(), bend=lambda load: 1.3 if load == 8 else 1.0))
    found = fitted(server, points)
    assert worst_error(server, found, [point for point in points if point.isl == 128]) < 0.05
    assert dict(found.bends)[8.0] > 1.1


def test_a_card_s_own_constants_replace_those_of_its_architecture():
    server = dataclasses.replace(setup("a4500", "int4", kv=60_000))
    known = truth("a4500", compute_tflops=75.0, bandwidth_gb_per_s=600.0, step_ms=0.4)
    points = list(simulated(server, known))
    found = fitted(server, points)
    assert worst_error(server, found, points) < 0.02
    assert found.bandwidth_gb_per_s == pytest.approx(600, rel=0.15)


def test_points_of_a_busy_machine_that_fit_together_badly_are_fitted_all_the_same():
    measured = ((1, 64, 10.6, 406.0, 73.9), (4, 64, 11.1, 1770.0, 266.0), (1, 300, 2.3, 4706.0, 154.7))
    points = [
        CalibrationPoint(concurrency=load, isl=isl, osl=16, output_tps=tps, ttft_ms=ttft, tpot_ms=gap)
        for load, isl, tps, ttft, gap in measured
    ]
    found = fitted(cpu_setup(), points)
    assert found.log_sd > 0.1
    assert worst_error(cpu_setup(), found, points) < 1


def test_of_several_calibrations_that_of_the_model_itself_is_taken_and_others_say_less():
    server = cpu_setup()
    own = fitted(server, simulated(server, truth()))
    others = {
        "model": dataclasses.replace(own, shape=(16, 2048, 8192, 128256), date="2026-12-01"),
        "format": dataclasses.replace(own, quant_algo="W8A16", date="2026-12-01"),
        "engine": dataclasses.replace(own, engine="llmapi", date="2026-12-01"),
    }
    asked = dataclasses.replace(server, engine="openvino")
    assert calibration.best_for(asked, among=[*others.values(), own]) == own
    widths = {name: calibration.best_for(asked, among=[other]).log_sd for name, other in others.items()}
    assert own.log_sd < widths["model"] < widths["format"] < widths["engine"]


def deeper(server, factor):
    return dataclasses.replace(
        server, model=dataclasses.replace(server.model, num_layers=factor * server.model.num_layers)
    )


def test_what_a_step_costs_besides_grows_with_the_layers_of_another_model():
    server = cpu_setup()
    found = fitted(server, simulated(server, truth(step_ms=20.0)))
    alone = Workload(isl=16, osl=64, isl_max=16, osl_max=64, concurrency=1)
    small, large = (
        speed.estimate(one, alone, constants=speeds.constants(), calibration=found).line.rates
        for one in (server, deeper(server, 4))
    )
    assert small.step == pytest.approx(found.step_ms / 1e3)
    # Of what is expected of thirty layers, three quarters are theirs.
    assert large.step / small.step == pytest.approx((1 + 4 * 3) / 4)
    assert large.weight_byte == small.weight_byte


def test_a_card_that_was_measured_in_fp16_multiplies_faster_in_fp8():
    server = setup("h100-sxm", "fp16", kv=400_000)
    slow = truth("h100-sxm", compute_tflops=0.8 * 742, bandwidth_gb_per_s=3000.0, step_ms=0.7)
    found = fitted(server, simulated(server, slow))
    fp8 = dataclasses.replace(server, recipe=quant.get("fp8"))

    def flop(one, calibrated):
        load = Workload(isl=128, osl=128, isl_max=128, osl_max=128)
        return speed.estimate(one, load, constants=speeds.constants(), calibration=calibrated).line.rates.flop

    # Both reach the same share of what they were expected to.
    assert flop(fp8, found) / flop(fp8, None) == pytest.approx(flop(server, found) / flop(server, None), rel=1e-6)
    assert flop(fp8, found) < 0.6 * flop(server, found)


def kept_in_step(server, known, crowds):
    """Points of a server whose clients begin together, as many as CROWDS says."""
    return list(simulated(server, dataclasses.replace(known, crowds=crowds)))


def test_clients_that_keep_step_wait_longer_for_first_tokens_and_less_for_others():
    server, crowds = cpu_setup(), ((4.0, 1.9), (8.0, 3.6), (32.0, 8.7))
    points = kept_in_step(server, truth(), crowds)
    by_chance = list(simulated(server, truth()))
    assert points[2].ttft_ms > 2 * by_chance[2].ttft_ms
    assert points[2].tpot_ms < by_chance[2].tpot_ms
    found = fitted(server, points)
    assert [load for load, _ in found.crowds] == [4.0, 8.0, 32.0]
    assert [crowd for _, crowd in found.crowds] == pytest.approx([crowd for _, crowd in crowds], rel=0.1)
    said = [speed.predict(server, workload_of(p), constants=speeds.constants(), calibration=found) for p in points]
    assert [one.ttft_ms.mid for one in said] == pytest.approx([point.ttft_ms for point in points], rel=0.05)

    spread = dataclasses.replace(workload_of(points[2]), osl_cv=0.5)
    apart = speed.predict(server, spread, constants=speeds.constants(), calibration=found)
    assert apart.ttft_ms.mid == pytest.approx(by_chance[2].ttft_ms, rel=0.1), "answers of other lengths part them"


def test_one_point_is_refused():
    with pytest.raises(UsageError, match="1 point cannot tell three constants apart"):
        fitted(cpu_setup(), list(simulated(cpu_setup(), truth()))[:1])


def test_loads_are_made_to_fit_a_small_server():
    limits = Limits(max_batch_size=4, max_seq_len=256, max_num_tokens=256)
    loads = calibration.loads_within(limits)
    assert {load.concurrency for load in loads} == {1, 4}
    assert max(load.isl + load.osl for load in loads) <= 256
    assert calibration.loads_within(dataclasses.replace(limits, max_seq_len=100)) != ()


def test_rounds_take_turns_and_share_the_requests():
    limits = Limits(max_batch_size=32, max_seq_len=2048, max_num_tokens=2048)
    once, thrice = calibration.loads_within(limits), calibration.loads_within(limits, rounds=3)
    assert thrice == thrice[: len(once)] * 3
    assert [(load.concurrency, load.isl, load.requests) for load in thrice[: len(once)]] == [
        (1, 128, 4), (8, 128, 32), (32, 128, 96), (1, 768, 3), (4, 512, 8)
    ]  # fmt: skip
    assert [load.requests for load in calibration.loads_within(limits, rounds=100)[:5]] == [2, 16, 64, 2, 8]
    few = dataclasses.replace(limits, max_batch_size=6)
    assert all(load.requests % load.concurrency == 0 for load in calibration.loads_within(few, rounds=3))


REPORT = {
    "requests": {"ok": 8},
    "profile": {"arrival": "closed", "concurrency": 2},
    "input_tokens": 1040,
    "output_tokens": 512,
    "output_token_throughput_tps": 100.0,
    "ttft_ms": {"mean": 50.0},
    "tpot_ms": {"mean": 9.0},
}


def test_a_report_is_a_point():
    found = calibration.point_of(REPORT, source="r")
    assert found == CalibrationPoint(concurrency=2, isl=130, osl=64, output_tps=100.0, ttft_ms=50.0, tpot_ms=9.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"profile": {"arrival": "poisson", "concurrency": 2}}, "r is of an open loop"),
        ({"tpot_ms": {"mean": None}}, "r has no request that got two tokens"),
        ({"requests": None}, "r is not a report of trtk bench"),
    ],
)
def test_a_report_that_says_too_little_is_refused(change, sentence):
    with pytest.raises(UsageError, match=sentence):
        calibration.point_of({**REPORT, **change}, source="r")


def test_a_calibration_of_a_model_by_any_name_is_read_again():
    server = cpu_setup()
    found = dataclasses.replace(fitted(server, simulated(server, truth())), model='models/\N{ROCKET} "7B"\\x')

    calibration.write(found)

    assert calibration.read_all() == [found]


def test_models_whose_names_look_alike_in_a_file_s_name_keep_a_calibration_each():
    server = cpu_setup()
    one = fitted(server, simulated(server, truth()))
    names = ["org/a", "org-a", "Org-A", "модель", "模型"]

    assert len({calibration.write(dataclasses.replace(one, model=name)) for name in names}) == len(names)


def test_what_is_kept_is_read_again_and_the_nearest_stands_in():
    server = cpu_setup()
    found = fitted(server, simulated(server, truth(), noise=0.02))
    path = calibration.write(found)
    assert path.parent == calibration.folder()
    assert calibration.read_all() == [found]
    assert calibration.best_for(server, among=[found]) == found
    assert calibration.best_for(cpu_setup("int4_rtn"), among=[found]) == found, "the same kernels run it"
    other = calibration.best_for(cpu_setup("int8"), among=[found])
    assert other.log_sd > found.log_sd
    assert calibration.best_for(dataclasses.replace(server, gpu=gpus.get("h100-sxm")), among=[found]) is None
    path.write_text("engine = 3\n")
    with pytest.raises(UsageError, match="is not a calibration"):
        calibration.read_all()
