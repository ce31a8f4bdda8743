"""Host numbers for a kernel to read."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def numbers_on(device: torch.device, numbers: Sequence[int]) -> Tensor:
    """A few host numbers on the device, int64, without waiting for it: copied from pinned memory, in stream order."""
    on_host = torch.tensor(numbers, dtype=torch.int64, pin_memory=device.type == "cuda")
    return on_host.to(device, non_blocking=True)
