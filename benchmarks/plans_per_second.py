"""How long plans take: cards x models x formats in one process, memory, speed and cost of each.

python benchmarks/plans_per_second.py          # 1,000 of them
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time

from toolkit import gpus, quant, releases, speeds
from toolkit.errors import PlanInfeasible
from toolkit.models import configs
from toolkit.plan import Target, cost, limits, speed
from toolkit.plan.candidates import candidate
from toolkit.specs import Sharding, Workload

LOAD = Workload(isl=1024, osl=256, isl_max=1024, osl_max=256, concurrency=16)


def main() -> None:
    """Make the plans and print how many a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    asked = parser.parse_args().count
    demo = configs.read("demo")
    models = [
        dataclasses.replace(demo, hidden_size=64 * heads, num_heads=heads, num_layers=layers, num_kv_heads=8)
        for heads, layers in ((16, 24), (32, 32), (40, 40), (64, 80))
    ]
    facts = releases.facts_of(releases.default())
    every = itertools.cycle(itertools.product(gpus.catalogue(), quant.catalogue(), models))
    constants, started, fitting = speeds.constants(), time.perf_counter(), 0
    for gpu, recipe, model in itertools.islice(every, asked):
        try:
            made = candidate(
                model,
                Target(gpu=gpu, **facts),
                recipe,
                sharding=Sharding(),
                asked=limits.Asked(workload=LOAD),
            )
        except PlanInfeasible:
            continue
        found = speed.predict(made.setup, LOAD, constants=constants)
        cost.cost(1.0, 1, currency="EUR", output_tps=found.output_tps)
        fitting += 1
    took = time.perf_counter() - started
    print(f"{asked} plans, {fitting} of which fit, in {took:.2f} s: {asked / took:,.0f} a second")


if __name__ == "__main__":
    main()
