"""CacheEvents that remember what they were told, and frames to tell of."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter

from windowkv_service.cache.events import Departure, Lookup, RedisOp
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.domain.results import Tier


class RecordedEvents:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.lookups: Counter[tuple[Tier, Lookup]] = Counter()
        self.bytes_moved: Counter[tuple[Tier, Tier]] = Counter()
        self.departures: Counter[tuple[Tier, Departure]] = Counter()
        self.redis_failures: Counter[str] = Counter()
        self.redis_ops: Counter[RedisOp] = Counter()
        self.checksum_failures: Counter[Tier] = Counter()
        self.breaker: list[bool] = []

    def looked_up(self, tier: Tier, outcome: Lookup, count: int) -> None:
        with self._lock:
            self.lookups[tier, outcome] += count

    def moved(self, source: Tier, target: Tier, num_frames: int, size_bytes: int, seconds: float) -> None:
        with self._lock:
            self.bytes_moved[source, target] += size_bytes

    def evicted(self, tier: Tier, reason: Departure, count: int) -> None:
        with self._lock:
            self.departures[tier, reason] += count

    def redis_timed(self, op: RedisOp, seconds: float) -> None:
        with self._lock:
            self.redis_ops[op] += 1

    def redis_failed(self, op: RedisOp, reason: str) -> None:
        with self._lock:
            self.redis_failures[reason] += 1

    def checksum_failed(self, tier: Tier, reason: str) -> None:
        with self._lock:
            self.checksum_failures[tier] += 1

    def breaker_changed(self, is_open: bool) -> None:
        self.breaker.append(is_open)


def address(number: int) -> bytes:
    return hashlib.sha256(b"address %d" % number).digest()


def block(number: int, size: int = 300) -> Frame:
    """A frame with bytes of its own."""
    seed = hashlib.sha256(b"payload %d" % number).digest()
    payload = (seed * (size // len(seed) + 1))[:size]
    return Frame.of(FrameKind.BLOCK, address(number), payload)
