"""Where tensors are computed on."""

from __future__ import annotations

from toolkit.errors import MissingError


def need_device(name: str) -> None:
    """Raise MissingError, before any work, when PyTorch cannot compute on a device here."""
    import torch

    if name.startswith("cuda") and not torch.cuda.is_available():
        raise MissingError(
            f"--device {name} needs an NVIDIA GPU that PyTorch can use; PyTorch {torch.__version__} finds none here.",
            hint="Use --device cpu, or install a CUDA build of PyTorch and check `nvidia-smi`.",
        )
