"""select_windows on scores with ties, judged by sorting a list."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from kernel_cases.memory import poisoned

from windowkv_kernels import select_windows


@dataclass(frozen=True)
class SelectCase:
    """num_values: so few different scores that many windows tie."""

    num_windows: int = 37
    counts: tuple[int, ...] = (5,)
    forced: tuple[int, ...] = ()
    num_values: int = 1000

    def check(self, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(0)
        shape = (len(self.counts), self.num_windows)
        scores = torch.randint(-self.num_values // 2, self.num_values, shape, generator=generator) * 1e-5
        scores[:, self.num_windows - self.num_windows // 4 :] = -math.inf  # windows without a review token
        with poisoned():
            got = select_windows(scores.to(device), self.counts, forced=self.forced)
        for row, count, chosen in zip(scores.tolist(), self.counts, got, strict=True):
            ranked = sorted(range(self.num_windows), key=lambda w: (w not in self.forced, -row[w], w))
            assert chosen.dtype == torch.int64
            assert chosen.tolist() == sorted(ranked[:count])


TINY = [
    SelectCase(num_windows=1, counts=(1,)),
    SelectCase(counts=(0, 1, 36, 37)),
    SelectCase(num_windows=128, counts=(64,), num_values=3),
    SelectCase(num_windows=331, counts=(40, 7), num_values=20, forced=(0, 329, 330)),  # several tiles
    SelectCase(counts=(3,), forced=(36, 0, 20)),
    SelectCase(num_values=1, counts=(13,)),
]
LARGE = [
    SelectCase(num_windows=8191, counts=(983, 700, 1200, 8191), forced=(0, 8189, 8190)),
    SelectCase(num_windows=70_001, counts=(8000,), num_values=100),
    SelectCase(num_windows=129, counts=(17,)),
]
