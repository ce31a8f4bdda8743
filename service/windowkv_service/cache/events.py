"""What the cache room tells whoever counts: handed in by assembly, called from any thread, never waited
for."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from windowkv_service.domain.results import Tier


class Lookup(Enum):
    HIT = "hit"
    MISS = "miss"
    CORRUPT = "corrupt"  # bytes were there and were wrong
    ERROR = "error"  # the tier could not be asked


class Departure(Enum):
    """Why something left a tier."""

    CAPACITY = "capacity"
    TTL = "ttl"
    DELETE = "delete"


class RedisOp(Enum):
    READ = "read"
    WRITE = "write"
    DELETE = "delete"
    EXPIRE = "expire"


class CacheEvents(Protocol):
    """Each call must return at once and never raise."""

    def looked_up(self, tier: Tier, outcome: Lookup, count: int) -> None: ...

    def moved(self, source: Tier, target: Tier, num_frames: int, size_bytes: int, seconds: float) -> None: ...

    def evicted(self, tier: Tier, reason: Departure, count: int) -> None: ...

    def redis_timed(self, op: RedisOp, seconds: float) -> None: ...

    def redis_failed(self, op: RedisOp, reason: str) -> None: ...

    def checksum_failed(self, tier: Tier, reason: str) -> None: ...

    def breaker_changed(self, is_open: bool) -> None: ...


class NoEvents:
    """Nobody counts."""

    def looked_up(self, tier: Tier, outcome: Lookup, count: int) -> None:
        return

    def moved(self, source: Tier, target: Tier, num_frames: int, size_bytes: int, seconds: float) -> None:
        return

    def evicted(self, tier: Tier, reason: Departure, count: int) -> None:
        return

    def redis_timed(self, op: RedisOp, seconds: float) -> None:
        return

    def redis_failed(self, op: RedisOp, reason: str) -> None:
        return

    def checksum_failed(self, tier: Tier, reason: str) -> None:
        return

    def breaker_changed(self, is_open: bool) -> None:
        return
