"""Windows by lot: what any method must beat at equal bytes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from windowkv_service.selection.blind import BlindSelector


@dataclass(frozen=True)
class RandomWindows(BlindSelector):
    """The same lot for the same prompt length and seed."""

    name: str = "random"
    seed: int = 0

    def rank(self, num_windows: int, group: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + num_windows * 1009 + group)
        return torch.rand(num_windows, generator=generator)
