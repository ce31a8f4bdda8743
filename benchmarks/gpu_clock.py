"""Seconds that a GPU takes, and the copy bandwidth that they are held against."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

FLUSHED_BYTES = (
    512 << 20
)  # well over any L2, and long enough in writing for the launches behind it to be queued
COPIED_BYTES = 4 << 30
PRODUCT_SIDE = 8192


@dataclass(frozen=True)
class GpuClock:
    """Times work on one device with cold caches, by events on its stream; medians."""

    device: torch.device
    repetitions: int = 20
    budget_s: float = 2.0

    def seconds(self, work: Callable[[], object]) -> float:
        flushed = torch.empty(FLUSHED_BYTES, dtype=torch.uint8, device=self.device)
        for _ in range(3):
            work()
        torch.cuda.synchronize(self.device)
        pairs = []
        started = time.perf_counter()
        while len(pairs) < 3 or (
            len(pairs) < self.repetitions and time.perf_counter() - started < self.budget_s
        ):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            flushed.zero_()
            begin.record()
            work()
            end.record()
            end.synchronize()
            pairs.append((begin, end))
        return statistics.median(begin.elapsed_time(end) for begin, end in pairs) / 1e3

    def wall_seconds(self, work: Callable[[], object]) -> float:
        """Once, by the wall, until the device has nothing left to do: for work that the host takes part in."""
        torch.cuda.synchronize(self.device)
        started = time.perf_counter()
        work()
        torch.cuda.synchronize(self.device)
        return time.perf_counter() - started

    def idle_share(self, work: Callable[[], object], times: int = 10) -> float | None:
        """The part of the time in which no kernel ran, from the first kernel to the last, of so many rounds of work."""
        activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
        with torch.profiler.profile(activities=activities) as profile:
            for _ in range(times):
                work()
            torch.cuda.synchronize(self.device)
        kernels = [
            (event.time_range.start, event.time_range.end)
            for event in profile.events() or ()
            if event.device_type == torch.autograd.DeviceType.CUDA
        ]
        return uncovered(kernels)

    def copy_bandwidth(self) -> float:
        """Bytes per second, read and written, of a large copy on the device."""
        source = torch.ones(COPIED_BYTES // 2, dtype=torch.int16, device=self.device)
        target = torch.empty_like(source)
        return 2 * COPIED_BYTES / self.seconds(lambda: target.copy_(source))

    def product_rate(self, dtype: torch.dtype) -> float:
        """FLOPs per second of a large matrix product, which is what attention over a long prefix comes down to."""
        side = torch.randn(PRODUCT_SIDE, PRODUCT_SIDE, dtype=dtype, device=self.device)
        return 2 * PRODUCT_SIDE**3 / self.seconds(lambda: side @ side)

    def launch_seconds(self) -> float:
        """What one kernel takes that does next to nothing."""
        one = torch.zeros(1, device=self.device)
        return self.seconds(lambda: one.add_(1.0))


def uncovered(intervals: Sequence[tuple[float, float]]) -> float | None:
    """The share of the time from the first beginning to the last end that no interval covers; None of none."""
    if not intervals:
        return None
    ordered = sorted(intervals)
    begin = until = ordered[0][0]
    idle = 0.0
    for start, end in ordered:
        idle += max(0.0, start - until)
        until = max(until, end)
    return idle / (until - begin) if until > begin else 0.0
