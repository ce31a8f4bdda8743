"""Metrics that have been fed once through every method, for whoever asks which series there are."""

from __future__ import annotations

from dataclasses import replace

from windowkv_service import errors
from windowkv_service.cache.events import Departure, Lookup, RedisOp
from windowkv_service.domain.requests import Compression, QuestionSelection
from windowkv_service.domain.results import (
    CacheInfo,
    CacheState,
    CreateOutcome,
    EngineStatus,
    ModelInfo,
    Tier,
    TierHealth,
    TierStatus,
    Usage,
)
from windowkv_service.telemetry import Metrics

USAGE = Usage(
    prompt_tokens=1010,
    cached_tokens=1000,
    kept_tokens=120,
    generated_tokens=7,
    source_tier=Tier.REDIS,
    miss_reason=None,
    diverged_at=None,
    fidelity=0.97,
    time_to_first_token_s=0.02,
    queue_s=0.001,
    blocks_fetched=3,
    bytes_fetched=4096,
    fetch_s=0.004,
    device_bytes=65536,
    selections=1,
    tail_bytes=2048,
    is_recomputed=False,
)

CACHE = CacheInfo(
    name="caches/0123456789",
    model="builtin",
    state=CacheState.READY,
    compression=Compression(),
    token_count=1000,
    kept_token_count=120,
    full_bytes=1_000_000,
    stored_bytes=125_000,
    index_bytes=1000,
    bytes_by_tier={Tier.DEVICE: 125_000},
    tier=Tier.DEVICE,
    create_time=0.0,
    update_time=0.0,
    expire_time=1.0,
    last_used_time=0.0,
)


def feed_everything(metrics: Metrics) -> None:
    """Call each method once, with values that move whatever they feed."""
    requests, steps, tiers = metrics.requests, metrics.steps, metrics.tiers
    held = tuple(TierStatus(tier, TierHealth.UP, capacity_bytes=100, used_bytes=10) for tier in Tier)
    metrics.observe_status(EngineStatus(True, False, 0.1, 3, 4, held))
    metrics.describe_build("1.0", "cpu")
    metrics.describe_model(
        ModelInfo("m", "d" * 64, "llama", 10, 100, 4, 2, 16, 16, "float32", 512, ("windowkv",))
    )
    requests.token_after(0.01)
    requests.created(CreateOutcome(CACHE, False, 10, 0.5, 0.1), Tier.HOST)
    requests.answered(replace(USAGE, is_recomputed=True))
    requests.selected(QuestionSelection.QUESTION)
    requests.ended("generate", 1.0)
    requests.cancelled("deadline")
    requests.rejected(errors.QueueFull("full"))
    steps.stepped("decode", 8, 0.01)
    steps.faulted()
    steps.set_staging(1024)
    steps.compressed(CACHE, 0.01)
    for tier in Tier:
        tiers.set_entries(tier, num_entries=2, pinned_bytes=5)
    tiers.looked_up(Tier.HOST, Lookup.HIT, 3)
    tiers.moved(Tier.HOST, Tier.DEVICE, num_frames=2, size_bytes=100, seconds=0.001)
    tiers.evicted(Tier.HOST, Departure.TTL, 1)
    tiers.checksum_failed(Tier.REDIS, "checksum differs")
    tiers.redis_timed(RedisOp.READ, 0.01)
    tiers.redis_failed(RedisOp.READ, "timeout")
    tiers.breaker_changed(is_open=True)
    metrics.grpc.started("/windowkv.v1.CacheService/GetCache", "unary")
    metrics.grpc.handled("/windowkv.v1.CacheService/GetCache", "unary", "OK")
    metrics.grpc.observe("/windowkv.v1.CacheService/GetCache", "unary", 0.01)
