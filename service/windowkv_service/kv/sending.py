"""Numbers of the host for the device to read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def on_device(
    numbers: Tensor | Sequence[int] | Sequence[float] | Sequence[Sequence[int]] | Sequence[Sequence[float]],
    device: torch.device,
    dtype: torch.dtype = torch.long,
) -> Tensor:
    """On the device, in stream order: nobody waits for what a GPU is doing meanwhile, as an ordinary copy would. dtype:
    of numbers that are no tensor."""
    host = numbers if isinstance(numbers, Tensor) else torch.tensor(numbers, dtype=dtype)
    if device.type == "cuda":
        return host.pin_memory().to(device, non_blocking=True)
    return host.to(device)
