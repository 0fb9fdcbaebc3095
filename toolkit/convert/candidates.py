"""Every recipe that a search may choose for a group of linears, made by its real algorithm."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit import quant
from toolkit.checkpoint.linear_store import LinearStore
from toolkit.convert.grouping import quantized
from toolkit.forward.calibration import CalibrationPass
from toolkit.quant.statistics import Wanted
from toolkit.specs import ConversionPlan, Progress, QuantRecipe, parts
from toolkit.weights import Layer, Linear

if TYPE_CHECKING:
    from collections.abc import Callable

    from toolkit.quant.statistics import InputStatistics

#: (layer, group) → the recipes to choose from.
Choices = Mapping[tuple[int, str], tuple[QuantRecipe, ...]]


class Candidates:
    """What needs calibration is made once and kept in a folder; the rest is made whenever it is asked for."""

    def __init__(self, folder: Path, plan: ConversionPlan, choices: Choices) -> None:
        self.store = LinearStore(folder)
        self.plan, self.spec, self.choices = plan, plan.model, choices

    def make(
        self, layer_of: Callable[[int], Layer], calibration: Callable[[], CalibrationPass], progress: Progress
    ) -> None:
        """Quantize every group by each of its recipes that needs calibration; goes on where it stopped."""
        layers = range(self.spec.num_layers)
        if all(index in self.store for index in layers) or not any(self._wanted(index) for index in layers):
            return
        step, pass_ = "Make the candidates", calibration()
        for index in layers:
            progress(step, index, len(layers))
            layer, is_made = layer_of(index), index in self.store
            statistics = pass_.through(layer, {} if is_made else self._wanted(index))
            if not is_made:
                self.store.save(index, self._calibrated(layer, statistics))
        progress(step, len(layers), len(layers))

    def of(self, layer: Layer, group: str, recipe: QuantRecipe) -> dict[str, Linear]:
        """Return a group's linears by a recipe, without biases."""
        members = parts.groups(self.spec, layer.index)[group]
        if not recipe.needs_calibration:
            return quantized(self.plan, layer, group, recipe=recipe, statistics=None)
        names = {f"{recipe.name}/{part}": part for part in members}
        found = self.store.load(layer.index, names, device=str(layer.linears[members[0]].weight.device))
        return {names[name]: linear for name, linear in found.items()}

    def _calibrated(self, layer: Layer, statistics: Mapping[str, InputStatistics]) -> dict[str, Linear]:
        made: dict[str, Linear] = {}
        for group in parts.groups(self.spec, layer.index):
            for recipe in self.choices.get((layer.index, group), ()):
                if recipe.needs_calibration:
                    linears = quantized(self.plan, layer, group, recipe=recipe, statistics=statistics[group])
                    made |= {f"{recipe.name}/{part}": linear for part, linear in linears.items()}
        return made

    def _wanted(self, index: int) -> dict[str, Wanted]:
        found = {}
        for group in parts.groups(self.spec, index):
            wanted = Wanted.NOTHING
            for recipe in self.choices.get((index, group), ()):
                wanted |= quant.algorithm(recipe).wanted
            if wanted:
                found[group] = wanted
        return found
