"""Large weights are worked through in blocks of rows, so that what is made on the way stays in the cache."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: Elements of a block: 1 MiB of float32 for a CPU's second-level cache; on a GPU enough to keep all of it busy.
CPU_ELEMENTS, GPU_ELEMENTS = 1 << 18, 1 << 25
#: Elements of a chunk that goes column by column: enough rows to keep a column's work above its calls.
CPU_CHUNK_ELEMENTS, GPU_CHUNK_ELEMENTS = 1 << 23, 1 << 27


def row_blocks(weight: torch.Tensor) -> Iterator[slice]:
    """Yield the rows of a matrix, a block at a time."""
    return _slices(weight, GPU_ELEMENTS if weight.is_cuda else CPU_ELEMENTS)


def chunks(weight: torch.Tensor) -> Iterator[slice]:
    """Yield the rows of a matrix in larger pieces, for work whose temporaries are as large as the piece."""
    return _slices(weight, GPU_CHUNK_ELEMENTS if weight.is_cuda else CPU_CHUNK_ELEMENTS)


def _slices(weight: torch.Tensor, elements: int) -> Iterator[slice]:
    rows, columns = weight.shape
    step = max(1, elements // columns)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def amax(weight: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude of a matrix, float32 []."""
    import torch

    return torch.stack([torch.stack(weight[rows].aminmax()).abs().amax().float() for rows in row_blocks(weight)]).amax()


def row_amax(weight: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude of each row, float32 [N]."""
    import torch

    found = torch.empty(weight.shape[0], device=weight.device)
    for rows in row_blocks(weight):
        found[rows] = weight[rows].abs().amax(1)
    return found


def column_amax(weight: torch.Tensor) -> torch.Tensor:
    """Return the largest magnitude of each column, float32 [K]."""
    import torch

    return torch.stack([weight[rows].abs().amax(0).float() for rows in row_blocks(weight)]).amax(0)
