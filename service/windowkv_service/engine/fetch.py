"""Frames brought up from the tiers below, and what it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windowkv_service.cache.frame import FrameKind
from windowkv_service.cache.jobs import Fetched
from windowkv_service.cache.tiers.base import Miss
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import MissReason, Tier
from windowkv_service.engine.resources import Resources, finished
from windowkv_service.engine.task import Walk

PART = 64  # frames, of half a megabyte to one where blocks are large
MEASURED_BYTES = 1 << 20  # the time of smaller loads says more of waiting than of bytes
_TELLING = (MissReason.CORRUPT, MissReason.TIER_DOWN, MissReason.NOT_CACHED)  # what says most comes first
PREFIX_TTL_S = 600.0  # blocks of a prompt without a handle, whose entry and life are not known

OnPart = Callable[[int, Fetched], None]


@dataclass
class FetchReport:
    """What had to be moved for one request. farthest: the lowest tier that served a byte."""

    num_blocks: int = 0
    num_bytes: int = 0
    seconds: float = 0.0
    farthest: Tier = Tier.DEVICE
    miss_reason: MissReason | None = None
    is_recomputed: bool = False

    def lose(self, fetched: Fetched) -> None:
        """Why what was kept once could not be brought back."""
        reasons = [one.reason for one in fetched.found if isinstance(one, Miss)]
        if reasons:
            worst = min(reasons, key=_TELLING.index)
            self.miss_reason = MissReason.EVICTED if worst is MissReason.NOT_CACHED else worst

    def add(self, fetched: Fetched, seconds: float) -> None:
        self.seconds += seconds
        for found, source in zip(fetched.found, fetched.sources, strict=True):
            if isinstance(found, Miss):
                continue
            self.num_blocks += 1
            self.num_bytes += found.payload.nbytes
            if source is Tier.REDIS or (source is Tier.HOST and self.farthest is Tier.DEVICE):
                self.farthest = source


def fetch(
    resources: Resources,
    addresses: Sequence[Address],
    kind: FrameKind,
    report: FetchReport,
    ttl_s: float = PREFIX_TTL_S,
    on_part: OnPart = lambda first, fetched: None,
) -> Walk[Fetched]:
    """Frames or misses from the tiers below, within the load budget, while others go on. Parts are verified side by
    side; on_part is given each, and the place of its first address, as soon as it is there. What came from Redis stays
    in host memory for ttl_s."""
    started, starts = time.monotonic(), range(0, len(addresses), PART)
    jobs = [
        resources.transfers.submit_fetch(
            addresses[first : first + PART], kind, budget_s=resources.limits.load_budget_s, ttl_s=ttl_s
        )
        for first in starts
    ]
    parts: list[Fetched] = []
    for first, job in zip(starts, jobs, strict=True):
        parts.append((yield from finished(job)))
        on_part(first, parts[-1])
    fetched, seconds = _joined(parts), time.monotonic() - started
    report.add(fetched, seconds)
    if fetched.size_bytes >= MEASURED_BYTES:
        resources.store.speeds.observe_load(_farthest(fetched), fetched.size_bytes, seconds)
    return fetched


def _joined(parts: Sequence[Fetched]) -> Fetched:
    return Fetched(
        [found for part in parts for found in part.found],
        [source for part in parts for source in part.sources],
        sum(part.size_bytes for part in parts),
        max((part.seconds for part in parts), default=0.0),
    )


def _farthest(fetched: Fetched) -> Tier:
    return Tier.REDIS if Tier.REDIS in fetched.sources else Tier.HOST
