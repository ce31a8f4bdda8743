"""All cases for a real GPU."""

from __future__ import annotations

from typing import Protocol

import torch
from kernel_cases import decode, moves, quantized, scores, selection, streams


class Case(Protocol):
    def check(self, device: torch.device) -> None:
        """Raises AssertionError where an operation does not keep to what its reference says."""


CASES: list[Case] = [
    *decode.LARGE,
    *moves.LARGE,
    *quantized.LARGE,
    *scores.LARGE,
    *selection.LARGE,
    *streams.LARGE,
]
