"""Which twin of an operation runs: decided by the device the tensors are on, and by nothing else."""

from __future__ import annotations

from types import ModuleType

import torch

from windowkv_kernels import reference


def twins(device: torch.device) -> ModuleType:
    """The module whose functions run on device: Triton's on an NVIDIA GPU, plain torch everywhere else."""
    if device.type == "cuda":
        from windowkv_kernels import ops  # where there is no GPU, Triton is never imported

        return ops
    return reference
