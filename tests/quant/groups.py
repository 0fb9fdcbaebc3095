"""Groups of random linears with one input that has strong channels, as language models have them."""

import torch

from toolkit import quant
from toolkit.quant.algorithm import LinearGroup, Settings
from toolkit.quant.format import run
from toolkit.quant.statistics import InputStatistics

QKV = {"attention.q": 256, "attention.k": 64, "attention.v": 64}


def random_inputs(columns: int = 256, tokens: int = 600, seed: int = 0) -> torch.Tensor:
    """Return correlated inputs [tokens, columns], one channel in thirty of them twenty times as strong."""
    made = torch.Generator().manual_seed(seed)
    mixing = torch.randn(columns, columns, generator=made) / columns**0.5 + torch.eye(columns)
    strong = 1 + 19 * (torch.rand(columns, generator=made) > 0.97)
    return torch.randn(tokens, columns, generator=made) @ mixing * strong


def random_weight(rows: int, columns: int = 256, seed: int = 1) -> torch.Tensor:
    """Return a bfloat16 weight."""
    return (torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * 0.05).bfloat16()


def random_weights(sizes: dict[str, int] | None = None, columns: int = 256) -> dict[str, torch.Tensor]:
    """Return a weight for each part."""
    sizes = sizes or QKV
    return {part: random_weight(rows, columns, seed) for seed, (part, rows) in enumerate(sizes.items(), 1)}


def quantized(recipe: str, weights: dict[str, torch.Tensor], inputs: torch.Tensor, *, group_size: int | None = None):
    """Return what a recipe makes of weights for inputs."""
    found = quant.get(recipe)
    algorithm = quant.algorithm(found)
    statistics = InputStatistics("the test's input", algorithm.wanted) if algorithm.wanted else None
    if statistics:
        statistics.add(inputs)
    group = LinearGroup(layer=0, name=next(iter(weights)), weights=weights, statistics=statistics)
    return algorithm.quantize(group, Settings(dtype=torch.float16, group_size=group_size or found.default_group_size))


def output_error(linears, weights: dict[str, torch.Tensor], inputs: torch.Tensor) -> float:
    """Return the relative error of the outputs, in the formats' own arithmetic."""
    wrong = right = 0.0
    for part, linear in linears.items():
        expected = inputs @ weights[part].float().T
        wrong += float((run(linear, inputs, quant.format_of(linear.algo)) - expected).square().sum())
        right += float(expected.square().sum())
    return (wrong / right) ** 0.5
