"""--quant auto: candidates, what each would cost, and the recipe of every group; all kept in the work folder."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.checkpoint.assignment import is_excluded
from toolkit.convert.allocation import Allocation, Key, allocate, options_of
from toolkit.convert.candidates import Candidates, Choices
from toolkit.convert.sensitivity import Scores, Sensitivity
from toolkit.errors import GateError, PlanInfeasible
from toolkit.files import write_json
from toolkit.forward.calibration import CalibrationPass
from toolkit.specs import ConversionPlan, Progress, QuantRecipe, parts
from toolkit.weights import Weights

if TYPE_CHECKING:
    import torch

FOLDER, REPORT = "search", "auto.json"
#: How often a measured bound is aimed at, and the share of it that is aimed at after a first measurement.
MAX_TRIALS, AIM = 4, 0.95
#: Below this share of the bound, bits were wasted and a second trial may save them.
WASTED = 0.8
#: Returns the measured KL divergence of the checkpoint in a folder, nats per token.
Measure = Callable[[Path], float]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One allocation that was made and measured."""

    limit: float  # of the estimate that it was allocated under
    mean_bits: float
    estimated_kl: float
    measured_kl: float


class Search:
    """Finds an allocation; an interrupted search goes on where it stopped, and finds the same."""

    def __init__(self, plan: ConversionPlan, work: Path) -> None:
        assert plan.auto, "the caller checked"
        self.plan, self.auto, self.work, self.folder = plan, plan.auto, work, work / FOLDER
        self.items = _items(plan)
        if not self.items:
            raise PlanInfeasible("--exclude leaves nothing to choose a recipe for.", hint="Give fewer patterns.")
        choices: Choices = dict.fromkeys((key for held in self.items.values() for key in held), plan.auto.candidates)
        self.candidates = Candidates(self.folder / "candidates", plan, choices)
        self.scores: Scores = {}
        self.trials: list[Trial] = [Trial(**trial) for trial in _read(self.folder / "trials.json", [])]

    def prepare(self, weights: Weights, ids: Callable[[], torch.Tensor], progress: Progress) -> None:
        """Make the candidates and weigh them."""
        path = self.folder / "scores.json"
        if not path.is_file():
            spec = self.plan.model
            self.candidates.make(weights.layer, lambda: CalibrationPass(spec, weights.embed(ids())), progress)
            seed = self.plan.calibration.seed if self.plan.calibration else 0
            found = Sensitivity(spec, weights, self.candidates, ids()).scores(progress, seed=seed)
            write_json(path, {f"{layer} {group}": kinds for (layer, group), kinds in found.items()})
        stored: dict[str, dict[str, float]] = _read(path, {})
        keys = {key: key.split(" ") for key in stored}
        self.scores = {(int(layer), group): stored[key] for key, (layer, group) in keys.items()}

    def allocation(self) -> Allocation:
        """Return what is to be written next: under the last trial's lesson, or the best trial's when there is none."""
        if self.auto.target_bits is not None:
            return self._allocated(target_bits=self.auto.target_bits)
        assert self.auto.max_kl is not None, "one of the two is set"
        limit = next_limit(self.trials, self.auto.max_kl)
        return self._allocated(max_kl=limit if limit is not None else self._best().limit)

    def is_settled(self, made: Allocation, measure: Measure | None) -> bool:
        """Measure what was written; return whether it is to be kept. Raises GateError when no trial keeps the bound."""
        if self.auto.max_kl is None or measure is None:
            return True
        limit = next_limit(self.trials, self.auto.max_kl)
        if limit is None:
            return True  # the best trial, written once more
        found = Trial(limit=limit, mean_bits=made.mean_bits, estimated_kl=made.kl, measured_kl=measure(self.work))
        self.trials.append(found)
        write_json(self.folder / "trials.json", [vars(trial) for trial in self.trials])
        if next_limit(self.trials, self.auto.max_kl) is not None:
            return False
        self._need_met(self._best())
        return self._best() is found

    def report(self, made: Allocation) -> dict[str, Any]:
        """Return what auto.json says."""
        counts = Counter(recipe.name for recipe in made.of.values())
        return {
            "candidates": [recipe.name for recipe in self.auto.candidates],
            "target_bits": self.auto.target_bits,
            "max_kl": self.auto.max_kl,
            "mean_bits": made.mean_bits,
            "estimated_kl": made.kl,
            "measured_kl": self._best().measured_kl if self.trials else None,
            "groups": dict(sorted(counts.items())),
            "trials": [vars(trial) for trial in self.trials],
            "assignment": _by_layer(made),
            "sensitivity": {f"{layer} {group}": kinds for (layer, group), kinds in self.scores.items()},
        }

    def clear(self) -> None:
        """Remove what only the search needed."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _allocated(self, *, target_bits: float | None = None, max_kl: float | None = None) -> Allocation:
        """Return an allocation with a recipe for every group; what must have one recipe is weighed together."""
        candidates, sizes = self.auto.candidates, {key: sum(held.values()) for key, held in self.items.items()}
        together = {
            key: {recipe.name: sum(self.scores[group][recipe.name] for group in held) for recipe in candidates}
            for key, held in self.items.items()
        }
        options = {key: options_of(candidates, size, together[key]) for key, size in sizes.items()}
        made = allocate(options, weights=sum(sizes.values()), target_bits=target_bits, max_kl=max_kl)
        of = {group: made.of[key] for key, held in self.items.items() for group in held}
        return dataclasses.replace(made, of=of)

    def _best(self) -> Trial:
        assert self.auto.max_kl is not None, "only a bound on KL is tried"
        met = [trial for trial in self.trials if trial.measured_kl <= self.auto.max_kl]
        if met:
            return min(met, key=lambda trial: (trial.mean_bits, trial.measured_kl))
        return min(self.trials, key=lambda trial: (trial.measured_kl, -trial.mean_bits))

    def _need_met(self, best: Trial) -> None:
        if self.auto.max_kl is not None and best.measured_kl > self.auto.max_kl:
            raise GateError(
                f"No mix of {', '.join(recipe.name for recipe in self.auto.candidates)} was found that keeps the KL "
                f"divergence at {self.auto.max_kl:g} nats per token: {best.mean_bits:.2f} bits came to "
                f"{best.measured_kl:.4f}.",
                hint="Allow more with --max-kl, or add fp16 to --candidates.",
            )


def next_limit(trials: Sequence[Trial], max_kl: float) -> float | None:
    """Return the bound on the estimate that is to be tried next, None when nothing more is.

    The first trial trusts the estimate. Later ones scale the bound by what the last measurement was of its estimate: a
    missed bound is always tried again, a wastefully kept one once.
    """
    if not trials:
        return max_kl
    last = trials[-1]
    if len(trials) >= MAX_TRIALS or last.measured_kl <= 0 or last.estimated_kl <= 0:
        return None
    if len(trials) > 1 and last.mean_bits == trials[-2].mean_bits:
        return None  # another bound gave the same allocation
    is_met = last.measured_kl <= max_kl
    if is_met and (len(trials) > 1 or last.measured_kl >= WASTED * max_kl):
        return None
    if not is_met and any(trial.measured_kl <= max_kl for trial in trials):
        return None  # the loosened trial missed; the one before is kept
    return last.estimated_kl * max_kl / last.measured_kl * AIM


def _items(plan: ConversionPlan) -> dict[Key, dict[Key, int]]:
    """Return the weights of each group that is quantized, by what has one recipe: a mixture's experts are one."""
    items: dict[Key, dict[Key, int]] = {}
    for layer in range(plan.model.num_layers):
        shapes = parts.shapes(plan.model, layer)
        for group, members in parts.groups(plan.model, layer).items():
            if not is_excluded(plan, layer, group):
                is_mixture = plan.model.is_moe_layer(layer) and group in {"mlp.fc", "mlp.proj"}
                held = items.setdefault((layer, "mlp.fc" if is_mixture else group), {})
                held[layer, group] = sum(shapes[part][0] * shapes[part][1] for part in members)
    return items


def _by_layer(made: Allocation) -> list[dict[str, str]]:
    layers: dict[int, dict[str, str]] = {}
    for (layer, group), recipe in made.of.items():
        layers.setdefault(layer, {})[group] = recipe.name
    return [layers.get(layer, {}) for layer in range(max(layers) + 1)]


def recipes_of(made: Allocation) -> dict[Key, QuantRecipe | None]:
    """Return the allocation as an Assignment has it: None for 16 bits."""
    return {key: recipe if recipe.quant_algo else None for key, recipe in made.of.items()}


def _read(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else default
