"""The arithmetic of E2M1: 1 sign, 2 exponent and 1 mantissa bit, largest 6 (OCP Microscaling, arXiv:2310.10537).

A code is sign << 3 | index into 0, 0.5, 1, 1.5, 2, 3, 4, 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

#: The largest E2M1 number.
MAX = 6.0
FLOAT32_EXPONENT = 0x7F800000
MAGNITUDES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)


def nearest_(values: torch.Tensor) -> torch.Tensor:
    """Replace float32 values by the nearest E2M1 numbers, ties to the even code; beyond 6 is 6."""
    import torch

    values.clamp_(-MAX, MAX)
    # Between powers of two the numbers are evenly spaced, by half the lower power; below 1 as between 1 and 2. round()
    # takes ties to even multiples, and those are the even codes.
    steps = (values.view(torch.int32) & FLOAT32_EXPONENT).view(torch.float32).clamp_(1, 4).mul_(0.5)
    return values.div_(steps).round_().mul_(steps)


def codes(numbers: torch.Tensor) -> torch.Tensor:
    """Return the uint8 code of E2M1 numbers."""
    import torch

    magnitudes = numbers.abs()
    # 0..4 are the codes of 0, .5, 1, 1.5, 2; 3, 4 and 6 follow.
    index = (magnitudes.clamp(max=2) * 2) + (magnitudes >= 3) + (magnitudes >= 4) + (magnitudes >= 6)
    return index.to(torch.uint8) | (torch.signbit(numbers).to(torch.uint8) << 3)


def values(stored: torch.Tensor) -> torch.Tensor:
    """Return the float32 numbers of uint8 codes."""
    import torch

    table = torch.tensor([*MAGNITUDES, *(-magnitude for magnitude in MAGNITUDES)], device=stored.device)
    return table[stored.int()]


def packed(stored: torch.Tensor) -> torch.Tensor:
    """Return uint8 [N, K/2] of codes [N, K]: even columns in the low nibble, odd ones in the high."""
    assert stored.shape[1] % 2 == 0, f"two columns share a byte, and there are {stored.shape[1]}"
    return (stored[:, 1::2] << 4).bitwise_or_(stored[:, 0::2])


def unpacked(weight: torch.Tensor) -> torch.Tensor:
    """Return the uint8 codes [N, K] of a packed [N, K/2]; the inverse of `packed`."""
    import torch

    return torch.stack((weight & 0x0F, weight >> 4), dim=-1).flatten(1)
