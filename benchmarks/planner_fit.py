"""Fit the time model's constants to published throughput, and write toolkit/speeds/fitted.toml.

    python benchmarks/planner_fit.py            # prints the constants
    python benchmarks/planner_fit.py --write

What is fitted, and how, is in planner_system.py; what it is worth, planner_accuracy.py tells. Needs numpy, which trtk's
dev extra has.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence

import numpy as np
import planner_accuracy
from planner_rows import DATA, Row, read_all
from planner_system import System, system_of

from toolkit import speeds
from toolkit.plan.speed.rates import architecture_of
from toolkit.specs import ArchitectureRates, LinkRates, SpeedConstants, to_json

PRIORS = DATA / "priors.toml"


def constants_of(system: System, rows: Sequence[Row], *, at: np.ndarray, covariance: np.ndarray) -> SpeedConstants:
    """Return the priors with the factors applied, and what is known of each constant's error."""
    before = speeds.read(PRIORS)
    factor = {name: float(np.exp(value)) for name, value in zip(system.names, at, strict=True)}
    doubt = {name: float(np.sqrt(value)) for name, value in zip(system.names, np.diag(covariance), strict=True)}
    counted = [architecture_of(row.setup.gpu, before).name for row in rows]
    architectures = tuple(_fitted(kind, factor, doubt, counted.count(kind.name)) for kind in before.architectures)
    links = tuple(
        dataclasses.replace(
            link,
            gb_per_s={ranks: _short(rate / factor[_wire(link)]) for ranks, rate in link.gb_per_s.items()},
        )
        for link in before.links
    )
    named = {"message_start": "start", "step_us": "step", "launch_us": "launch", "sequence_us": "sequence"}
    named |= {"sampling_us": "sampling", "passes": "passes", "before_0.17": "old", "expert_passes": "expert_passes"}
    named |= {"torch_compute": "torch_compute", "torch_host": "torch_host"}
    inverse = {"mixture": "mixture", "single_query": "single_query"}
    shared = dict(before.shared)
    shared |= {key: _short(before.shared[key] * factor[name]) for key, name in named.items()}
    shared |= {key: _short(before.shared[key] / factor[name]) for key, name in inverse.items()}
    return dataclasses.replace(
        before,
        fitted_on=datetime.datetime.now(tz=datetime.timezone.utc).date().isoformat(),
        rows=len(rows),
        architectures=architectures,
        links=links,
        shared=shared,
        releases=planner_accuracy.releases_of(rows),
    )


def _fitted(
    kind: ArchitectureRates, factor: Mapping[str, float], doubt: Mapping[str, float], rows: int
) -> ArchitectureRates:
    """Return an architecture with its factors; what has no rows keeps what was known before."""

    def moved(value: float, name: str) -> float:
        return _short(value / factor.get(f"{name}:{kind.name}", 1.0))

    compute = {key: moved_compute(kind.name, key, value, factor) for key, value in kind.compute.items()}
    names = {"bandwidth": "bandwidth", "kv_bandwidth": "kv", "attention": "attention"}
    log_sd = dict(kind.log_sd)
    for key, name in names.items():
        log_sd[key] = _doubt(doubt.get(f"{name}:{kind.name}"), log_sd[key])
    for key in compute:
        known = doubt.get(f"compute:{kind.name}:{key}")
        if known is not None:
            log_sd[key] = _doubt(known, 1.0)
    return dataclasses.replace(
        kind,
        compute=compute,
        bandwidth=moved(kind.bandwidth, "bandwidth"),
        kv_bandwidth=moved(kind.kv_bandwidth, "kv"),
        attention=moved(kind.attention, "attention"),
        log_sd=log_sd,
        rows=rows,
    )


def moved_compute(kind: str, precision: str, value: float, factor: Mapping[str, float]) -> float:
    """Return a precision's share; one without rows moves with its neighbours as far as half."""
    own = factor.get(f"compute:{kind}:{precision}")
    if own is not None:
        return _short(value / own)
    near = [found for name, found in factor.items() if name.startswith(f"compute:{kind}:")]
    return _short(value / (sum(near) / len(near)) ** 0.5) if near else value


def _doubt(found: float | None, known: float) -> float:
    """A constant is never surer than the difference between two releases."""
    return known if found is None else _short(max(0.03, found))


def _wire(link: LinkRates) -> str:
    return f"wire:{link.name.rstrip('345')}"


def _short(value: float) -> float:
    return float(f"{value:.4g}")


def toml_of(constants: SpeedConstants) -> str:
    """Return the constants as the file that toolkit.speeds reads."""
    document = to_json(constants)
    lines = ["# Written by benchmarks/planner_fit.py from benchmarks/data; do not edit."]
    tables = {key: value for key, value in document.items() if isinstance(value, dict)}
    arrays = {
        key: value
        for key, value in document.items()
        if value and isinstance(value, list) and isinstance(value[0], dict)
    }
    lines += [f"{key} = {_toml(value)}" for key, value in document.items() if key not in {*tables, *arrays}]
    for key, table in tables.items():
        lines += ["", f"[{key}]", *(f"{json.dumps(name)} = {_toml(value)}" for name, value in table.items())]
    for key, rows in arrays.items():
        for row in rows:
            lines += ["", f"[[{key}]]", *(f"{name} = {_toml(value)}" for name, value in row.items())]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(name)} = {_toml(item)}" for name, item in value.items()) + " }"
    return json.dumps(value)


def refitted() -> SpeedConstants:
    """Return the constants that the rows and the priors give, with their doubt."""
    rows = read_all()
    system = system_of(rows, speeds.read(PRIORS))
    at, covariance = system.fit(np.ones(len(rows), bool))
    found = constants_of(system, rows, at=at, covariance=covariance)
    return planner_accuracy.with_doubt(found, rows, system)


def main() -> None:
    """Print the constants, or write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    text = toml_of(refitted())
    if options.write:
        speeds.FITTED.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
