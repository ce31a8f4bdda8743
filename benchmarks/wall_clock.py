"""The clock of a machine without a GPU, with the methods of the GPU's: for trying the measurements out."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class WallClock:
    device: torch.device = torch.device("cpu")  # noqa: RUF009  # immutable
    repetitions: int = 3

    def seconds(self, work: Callable[[], object]) -> float:
        work()
        return statistics.median(self.wall_seconds(work) for _ in range(self.repetitions))

    def wall_seconds(self, work: Callable[[], object]) -> float:
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    def idle_share(self, work: Callable[[], object], times: int = 2) -> float | None:
        """There is no GPU to be idle."""
        for _ in range(times):
            work()
        return None

    def copy_bandwidth(self) -> float:
        source = torch.ones(1 << 20, dtype=torch.uint8)
        target = torch.empty_like(source)
        return 2 * source.numel() / self.seconds(lambda: target.copy_(source))

    def product_rate(self, dtype: torch.dtype) -> float:
        side = torch.randn(256, 256, dtype=dtype)
        return 2 * 256**3 / self.seconds(lambda: side @ side)
