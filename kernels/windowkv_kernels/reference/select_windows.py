"""Window scores → the windows that stay."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def select_windows(scores: Tensor, counts: Sequence[int], forced: Sequence[int]) -> tuple[Tensor, ...]:
    ranked = scores.clone()
    ranked[:, list(forced)] = float("inf")
    order = torch.sort(ranked, dim=1, descending=True, stable=True).indices
    return tuple(best[:count].sort().values for best, count in zip(order, counts, strict=True))
