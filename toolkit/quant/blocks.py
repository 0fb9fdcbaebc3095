"""Large weights are worked through in blocks of rows, so that what is made on the way stays in the cache."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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


def chunks(weights: Mapping[str, torch.Tensor]) -> Iterator[list[tuple[str, slice]]]:
    """Yield rows of matrices of one width in larger pieces, small matrices together.

    For work that goes column by column, whose temporaries are as large as the piece.
    """
    taken: list[tuple[str, slice]] = []
    elements = 0
    for part, weight in weights.items():
        limit = GPU_CHUNK_ELEMENTS if weight.is_cuda else CPU_CHUNK_ELEMENTS
        for rows in _slices(weight, limit):
            more = (rows.stop - rows.start) * weight.shape[1]
            if taken and elements + more > limit:
                yield taken
                taken, elements = [], 0
            taken.append((part, rows))
            elements += more
    if taken:
        yield taken


def gathered(weights: Mapping[str, torch.Tensor], pieces: Sequence[tuple[str, slice]]) -> torch.Tensor:
    """Return the rows of a chunk as one matrix, float32 [n, K]."""
    import torch

    return torch.cat([weights[part][rows].float() for part, rows in pieces])


def scatter(made: torch.Tensor, found: Mapping[str, torch.Tensor], pieces: Sequence[tuple[str, slice]]) -> None:
    """Write what was made of a chunk's rows into the matrix of each part."""
    sizes = [rows.stop - rows.start for _, rows in pieces]
    for (part, rows), each in zip(pieces, made.split(sizes), strict=True):
        found[part][rows] = each


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


def scale_of(amax: torch.Tensor, largest: float) -> torch.Tensor:
    """Return the scale under which a magnitude of AMAX becomes LARGEST, float32; 1 where amax is 0."""
    scale = amax.float() / largest
    return scale.masked_fill_(scale == 0, 1.0)


def best_scales(
    values: torch.Tensor,
    blocks: torch.Tensor,
    tried: Iterable[tuple[torch.Tensor, torch.Tensor]],
    *,
    nearest: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Return the scales [B, n, 1] under which each row of VALUES [B, n, b] has the least output error.

    `blocks` [B, b, b] are those on the diagonal of E[x x']: a block's error is taken alone, as the quadratic form of
    its change with its own block. TRIED yields each candidate with what the rounded numbers are multiplied by;
    NEAREST rounds in place.
    """
    import torch

    best: torch.Tensor | None = None
    best_error: torch.Tensor | None = None
    for scales, real in tried:
        change = nearest(values / real).mul_(real).sub_(values)
        error = torch.bmm(change, blocks).mul_(change).sum(-1, keepdim=True)
        if best is None or best_error is None:
            best, best_error = scales, error
            continue
        best = torch.where(error < best_error, scales, best)
        best_error = torch.minimum(error, best_error)
    assert best is not None, "there is a candidate"
    return best


def centred(factors: torch.Tensor, is_alive: torch.Tensor, *, limit: float) -> torch.Tensor:
    """Return factors [K] whose largest and smallest are as far from 1, at most LIMIT; 1 where a channel is dead."""
    import torch

    if not is_alive.any():
        return torch.ones_like(factors)
    alive = factors[is_alive]
    found = (factors / (alive.max() * alive.min()).sqrt()).clamp_(1 / limit, limit)
    return torch.where(is_alive, found, 1.0)
