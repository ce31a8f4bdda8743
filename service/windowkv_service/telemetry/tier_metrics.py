"""What each tier holds, finds, moves and loses. From looked_up on: the cache's CacheEvents."""

from __future__ import annotations

from enum import Enum
from itertools import permutations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from windowkv_service.domain.results import Tier
from windowkv_service.telemetry.logs import get_logger

LOOKUP_OUTCOMES = ("hit", "miss", "corrupt", "error")
EVICTION_REASONS = ("capacity", "ttl", "delete")
REDIS_OPERATIONS = ("read", "write", "delete", "expire")

# From one block out of host memory to a whole prompt out of a distant Redis.
MOVE_BUCKETS = (0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0)

log = get_logger(__name__)


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
        self._entries = Gauge(
            "windowkv_tier_entries", "Entries of this worker that a tier holds.", ["tier"], registry=registry
        )
        self._lookups = Counter(
            "windowkv_cache_lookups_total",
            "What was asked of a tier and what it had. corrupt: bytes that were wrong, and not served.",
            ["tier", "result"],
            registry=registry,
        )
        for tier in Tier:
            for outcome in LOOKUP_OUTCOMES:
                self._lookups.labels(tier.value, outcome)

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
            "windowkv_evictions_total", "What left a tier, and why.", ["tier", "reason"], registry=registry
        )
        self._checksum_failures = Counter(
            "windowkv_checksum_failures_total",
            "Stored bytes that were short, corrupt, swapped or of another version. None was served.",
            ["tier"],
            registry=registry,
        )
        for tier in Tier:
            self._checksum_failures.labels(tier.value)
            for reason in EVICTION_REASONS:
                self._evictions.labels(tier.value, reason)

    def _make_redis(self, registry: CollectorRegistry) -> None:
        self._has_redis_answered = False
        self._redis_seconds = Histogram(
            "windowkv_redis_op_seconds",
            "One batch of commands to Redis.",
            ["op"],
            buckets=MOVE_BUCKETS,
            registry=registry,
        )
        self._redis_errors = Counter(
            "windowkv_redis_errors_total", "Failed batches.", ["op", "reason"], registry=registry
        )
        for operation in REDIS_OPERATIONS:
            self._redis_seconds.labels(operation)
        self._breaker = Gauge(
            "windowkv_redis_breaker_state",
            "0 closed: Redis is used. 1 open: it is left alone until it answers again.",
            registry=registry,
        )

    def set_bytes(self, tier: Tier, *, capacity_bytes: int, used_bytes: int) -> None:
        self._capacity.labels(tier.value).set(capacity_bytes)
        self._used.labels(tier.value).set(used_bytes)

    def set_entries(self, tier: Tier, *, num_entries: int, pinned_bytes: int) -> None:
        self._entries.labels(tier.value).set(num_entries)
        self._pinned.labels(tier.value).set(pinned_bytes)

    def looked_up(self, tier: Tier, outcome: Enum, count: int) -> None:
        self._lookups.labels(tier.value, outcome.value).inc(count)

    def moved(self, source: Tier, target: Tier, num_frames: int, size_bytes: int, seconds: float) -> None:
        ends = (source.value, target.value)
        self._moves.labels(*ends).inc(num_frames)
        self._move_bytes.labels(*ends).inc(size_bytes)
        self._move_seconds.labels(*ends).observe(seconds)

    def evicted(self, tier: Tier, reason: Enum, count: int) -> None:
        self._evictions.labels(tier.value, reason.value).inc(count)

    def checksum_failed(self, tier: Tier, reason: str) -> None:
        """The reason is for people: as a label its first occurrence would have no rate and so no alarm."""
        self._checksum_failures.labels(tier.value).inc()
        log.warning("stored bytes are wrong and were not served", tier=tier.value, reason=reason)

    def redis_timed(self, op: Enum, seconds: float) -> None:
        self._redis_seconds.labels(op.value).observe(seconds)

    def redis_failed(self, op: Enum, reason: str) -> None:
        """The reason comes from the Redis tier's own short list."""
        self._redis_errors.labels(op.value, reason).inc()

    def breaker_changed(self, is_open: bool) -> None:
        """It is open until Redis has answered for the first time; only after that is opening it bad news."""
        self._breaker.set(is_open)
        if not is_open:
            self._has_redis_answered = True
            log.info("redis is used")
        elif self._has_redis_answered:
            log.warning("redis is left alone: no spill, no restore, until it answers again")
