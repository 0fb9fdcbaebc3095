"""What the dynamo target makes of a load: when there are more workers, and what its profiler is asked."""

import dataclasses
import shutil
import subprocess

import pytest
import yaml

from tests.deploy.deployments import because
from tests.deploy.dynamo_objects import PROMISE, both, components, dynamo, examined, objects
from toolkit import deploy
from toolkit.specs import Cost, Range


def test_there_are_as_many_prefill_workers_as_the_decode_workers_keep_busy():
    # Two decode workers write 2 * 1600 tokens/s, 256 for each prompt: 12.5 prompts/s of 400 ms are five workers' time.
    assert components(both())["prefill"]["replicas"] == 5
    assert components(both(settings={"prefill": "3"}))["prefill"]["replicas"] == 3


def test_autoscaling_goes_through_the_adapters_of_the_graph():
    spec = both(autoscale="keda")
    scaled = {one["spec"]["scaleTargetRef"]["name"]: one["spec"] for one in objects(spec, "autoscaling.yaml")}
    assert set(scaled) == {"demo-a4500-int4-prefill", "demo-a4500-int4-decode"}
    assert all(components(spec)[name]["scalingAdapter"] == {} for name in ("prefill", "decode"))
    assert all(one["minReplicaCount"] == 1 for one in scaled.values())
    queries = {
        name: {trigger["name"]: trigger["metadata"] for trigger in one["triggers"]} for name, one in scaled.items()
    }
    assert set(queries["demo-a4500-int4-prefill"]) == {"queued", "ttft"}
    assert set(queries["demo-a4500-int4-decode"]) == {"in-flight", "itl"}
    assert queries["demo-a4500-int4-decode"]["itl"]["threshold"] == "0.05"
    # Of this graph alone: Dynamo's own label has the namespace and the graph's name.
    assert all(
        'dynamo_namespace="serving-demo-a4500-int4"' in one["query"]
        for each in queries.values()
        for one in each.values()
    )


def test_a_long_start_keeps_within_what_an_autoscaler_takes(tmp_path):
    spec = dynamo(autoscale="keda")
    slow = dataclasses.replace(spec.autoscale, cooldown_s=because(9000))
    found = examined(dataclasses.replace(spec, autoscale=slow), tmp_path)
    assert {name: one.problems for name, one in found.items() if one.problems} == {}
    (scaled,) = objects(dataclasses.replace(spec, autoscale=slow), "autoscaling.yaml")
    down = scaled["spec"]["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
    assert down["stabilizationWindowSeconds"] == 3600
    assert all(policy["periodSeconds"] <= 1800 for policy in down["policies"])


@pytest.mark.parametrize(("per_minute", "seconds"), [(60, 0.4875), (0, 0)], ids=["busy", "idle"])
def test_promtool_reads_the_first_tokens_of_this_graph_and_zero_of_an_idle_one(per_minute, seconds, tmp_path):
    """A quantile of nothing is NaN, which no autoscaler can go by."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: Debian has it in the package prometheus")
    scaled = objects(both(autoscale="keda"), "autoscaling.yaml")
    triggers = {one["name"]: one["metadata"]["query"] for each in scaled for one in each["spec"]["triggers"]}
    family, own = "dynamo_frontend_time_to_first_token_seconds_bucket", "serving-demo-a4500-int4"
    series = [
        {"series": f'{family}{{dynamo_namespace="{name}",le="{le}"}}', "values": f"0+{slope}x20"}
        for name, rows in ((own, ((0.25, 0), (0.5, 1), ("+Inf", 1))), ("another", ((0.25, 0), (0.5, 0), ("+Inf", 9))))
        for le, share in rows
        for slope in [share * per_minute]
    ]
    series.append({"series": f'dynamo_frontend_queued_requests{{dynamo_namespace="{own}",pod="a"}}', "values": "3x20"})
    series.append({"series": f'dynamo_frontend_queued_requests{{dynamo_namespace="{own}",pod="b"}}', "values": "4x20"})
    expected = {triggers["ttft"]: seconds, triggers["queued"]: 7}
    asked = [
        {"expr": expr, "eval_time": "15m", "exp_samples": [{"labels": "{}", "value": value}]}
        for expr, value in expected.items()
    ]
    told = {
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": asked}],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(told))
    done = subprocess.run(
        ["promtool", "test", "rules", "test.yaml"], cwd=tmp_path, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_prefill_workers_are_in_what_it_costs():
    cost = Cost(
        currency="EUR", per_hour=1.0, per_month=1000.0, per_month_with_extras=Range(low=1, mid=1, high=1),
        per_million_output_tokens=None, per_million_at_duty=None, duty=1.0,
    )  # fmt: skip
    assert "all 7 GPUs cost 3500 EUR a month" in deploy.render(both(cost=cost))["README.md"]


def test_without_autoscaling_nothing_scales():
    assert "autoscaling.yaml" not in deploy.render(dynamo())
    assert all("scalingAdapter" not in one for one in components(dynamo()).values())


def test_the_request_has_the_load_and_the_objectives_and_applies_nothing():
    (request,) = objects(dynamo(promise=PROMISE), "request.yaml")
    assert request["spec"]["autoApply"] is False
    assert request["spec"]["workload"] == {"isl": 1024, "osl": 256, "concurrency": 32}
    assert request["spec"]["sla"] == {"ttft": 500, "itl": 50}
    assert request["spec"]["modelCache"] == {"pvcName": "models", "pvcModelPath": "demo/checkpoint"}


def test_a_known_rate_is_asked_for_in_place_of_a_concurrency():
    (request,) = objects(dynamo(promise=dataclasses.replace(PROMISE, rate_rps=8.0)), "request.yaml")
    assert request["spec"]["workload"] == {"isl": 1024, "osl": 256, "requestRate": 8.0}


def test_an_objective_for_whole_requests_excludes_those_for_tokens():
    whole = dataclasses.replace(PROMISE, slos=("e2e=9s",))
    (request,) = objects(dynamo(promise=whole), "request.yaml")
    assert request["spec"]["sla"] == {"e2eLatency": 9000}
    (request,) = objects(dynamo(promise=dataclasses.replace(whole, slos=("e2e=9s", "ttft=1s"))), "request.yaml")
    assert request["spec"]["sla"] == {"ttft": 1000}
    (request,) = objects(dynamo(promise=dataclasses.replace(whole, slos=())), "request.yaml")
    assert "sla" not in request["spec"]


def test_the_profiler_may_use_as_many_gpus_as_the_graph_takes():
    (request,) = objects(dynamo(tp=4), "request.yaml")
    assert request["spec"]["hardware"]["totalGpus"] == 8
