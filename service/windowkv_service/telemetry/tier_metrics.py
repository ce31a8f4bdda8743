"""What each tier holds, finds, moves and loses."""

from __future__ import annotations

from itertools import permutations
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from windowkv_service.domain.results import Tier

LookupResult = Literal["hit", "miss", "corrupt", "error"]
EvictionReason = Literal["capacity", "ttl", "delete", "drain"]
RedisOperation = Literal["read", "write", "delete", "expire", "ping"]
BreakerState = Literal["closed", "half_open", "open"]

LOOKUP_RESULTS = ("hit", "miss", "corrupt", "error")
EVICTION_REASONS = ("capacity", "ttl", "delete", "drain")
REDIS_OPERATIONS = ("read", "write", "delete", "expire", "ping")
BREAKER_STATES = {"closed": 0, "half_open": 1, "open": 2}

# From one block out of host memory to a whole prompt out of a distant Redis.
MOVE_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)


class TierMetrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self._make_contents(registry)
        self._make_moves(registry)
        self._make_losses(registry)
        self._make_redis(registry)

    def _make_contents(self, registry: CollectorRegistry) -> None:
        self._capacity = Gauge("windowkv_tier_capacity_bytes", "Room of a tier.", ["tier"], registry=registry)
        self._used = Gauge("windowkv_tier_used_bytes", "Bytes a tier holds.", ["tier"], registry=registry)
        self._pinned = Gauge(
            "windowkv_tier_pinned_bytes", "Bytes a tier must not evict now.", ["tier"], registry=registry
        )
        self._entries = Gauge("windowkv_tier_entries", "Entries a tier holds.", ["tier"], registry=registry)
        self._lookups = Counter(
            "windowkv_cache_lookups_total",
            "Lookups of a tier. corrupt: the bytes were there and failed their checksum.",
            ["tier", "result"],
            registry=registry,
        )
        for tier in Tier:
            for result in LOOKUP_RESULTS:
                self._lookups.labels(tier.value, result)

    def _make_moves(self, registry: CollectorRegistry) -> None:
        ends = ["from", "to"]
        self._moves = Counter(
            "windowkv_tier_moves_total", "Blocks copied between tiers.", ends, registry=registry
        )
        self._move_bytes = Counter(
            "windowkv_tier_move_bytes_total", "Bytes copied between tiers.", ends, registry=registry
        )
        self._move_seconds = Histogram(
            "windowkv_tier_move_seconds",
            "One transfer between tiers, of one block or many.",
            ends,
            buckets=MOVE_BUCKETS,
            registry=registry,
        )
        for source, target in permutations(Tier, 2):
            self._moves.labels(source.value, target.value)
            self._move_bytes.labels(source.value, target.value)

    def _make_losses(self, registry: CollectorRegistry) -> None:
        self._evictions = Counter(
            "windowkv_evictions_total", "Entries that left a tier.", ["tier", "reason"], registry=registry
        )
        self._checksum_failures = Counter(
            "windowkv_checksum_failures_total",
            "Stored blocks that were short, corrupt, swapped or of another version. None of them was served.",
            ["tier"],
            registry=registry,
        )
        for tier in Tier:
            self._checksum_failures.labels(tier.value)
            for reason in EVICTION_REASONS:
                self._evictions.labels(tier.value, reason)

    def _make_redis(self, registry: CollectorRegistry) -> None:
        self._redis_errors = Counter(
            "windowkv_redis_errors_total", "Failed calls to Redis.", ["op"], registry=registry
        )
        self._breaker = Gauge(
            "windowkv_redis_breaker_state",
            "0 closed: Redis is used. 1 half open: it is being tried again. 2 open: it is left alone.",
            registry=registry,
        )
        for operation in REDIS_OPERATIONS:
            self._redis_errors.labels(operation)

    def set_bytes(self, tier: Tier, *, capacity_bytes: int, used_bytes: int) -> None:
        self._capacity.labels(tier.value).set(capacity_bytes)
        self._used.labels(tier.value).set(used_bytes)

    def set_entries(self, tier: Tier, *, num_entries: int, pinned_bytes: int) -> None:
        self._entries.labels(tier.value).set(num_entries)
        self._pinned.labels(tier.value).set(pinned_bytes)

    def looked_up(self, tier: Tier, result: LookupResult) -> None:
        self._lookups.labels(tier.value, result).inc()

    def moved(self, source: Tier, target: Tier, *, num_blocks: int, size_bytes: int, seconds: float) -> None:
        ends = (source.value, target.value)
        self._moves.labels(*ends).inc(num_blocks)
        self._move_bytes.labels(*ends).inc(size_bytes)
        self._move_seconds.labels(*ends).observe(seconds)

    def evicted(self, tier: Tier, reason: EvictionReason) -> None:
        self._evictions.labels(tier.value, reason).inc()

    def checksum_failed(self, tier: Tier) -> None:
        self._checksum_failures.labels(tier.value).inc()

    def redis_failed(self, operation: RedisOperation) -> None:
        self._redis_errors.labels(operation).inc()

    def breaker_moved(self, state: BreakerState) -> None:
        self._breaker.set(BREAKER_STATES[state])
