"""The README of an output: the exact commands to apply, watch, test and remove it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from toolkit import templating
from toolkit.specs import DeploySpec


@dataclass(frozen=True, kw_only=True)
class Step:
    """Something to do: why, and the command."""

    text: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Guide:
    """What an operator types, in order."""

    needs: tuple[str, ...]  # what must be there before, a sentence each
    prepare: tuple[Step, ...]  # the model's files, secrets
    apply: tuple[Step, ...]
    watch: tuple[Step, ...]
    reach: Step  # makes it reachable for the load test
    url: str  # of `trtk bench`, once it is reachable: grpc://127.0.0.1:8001
    remove: tuple[Step, ...]
    is_reaching_one: bool = False  # True: of several servers, REACH leads to one
    notes: tuple[str, ...] = ()  # what cannot be checked here, what is doubtful


def readme(spec: DeploySpec, guide: Guide) -> str:
    """Return README.md."""
    servers = _servers(spec) if guide.is_reaching_one else 1
    values = {"spec": spec, "guide": guide, "servers": servers, "bench": bench_command(spec, guide.url, servers)}
    return templating.render("deploy/README.md.j2", values)


def _servers(spec: DeploySpec) -> int:
    """Return how many servers share the load that was asked for."""
    return (spec.autoscale.max_replicas if spec.autoscale else spec.replicas).whole


def bench_command(spec: DeploySpec, url: str, share: int = 1) -> str:
    """Return the load test that the deployment was sized for, or one server's SHARE of it, on one line."""
    promise = spec.promise
    model = "" if url.startswith("openai+") else f" --model {spec.model.front_model}"
    load = (
        f"--rate {promise.rate_rps / share:g}"
        if promise.rate_rps
        else f"--concurrency {math.ceil(promise.in_flight_on(max(share, spec.replicas.whole)) / share)}"
    )
    slos = "".join(f" --slo {slo}" for slo in promise.slos)
    return f"trtk bench --url {url}{model} {load} --isl {promise.isl:.0f} --osl {promise.osl:.0f} --duration 60{slos}"
