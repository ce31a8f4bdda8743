"""Responses → the SDK's values. Pure. Enum values that only a newer service knows read as absent."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from windowkv.v1 import cache_pb2, generation_pb2, model_pb2, types_pb2
from windowkv_client import _models as models

E = TypeVar("E", bound=StrEnum)


def read_cache(message: cache_pb2.Cache, creation: models.Creation | None = None) -> models.Cache:
    compression = message.compression
    return models.Cache(
        name=message.name,
        model=message.model,
        state=_enum(models.CacheState, cache_pb2.CacheState, message.state) or models.CacheState.READY,
        method=compression.method,
        kept_ratio=compression.kept_ratio,
        task=_enum(models.Task, cache_pb2.Task, compression.task) or models.Task.AUTO,
        retention=_enum(models.Retention, cache_pb2.Retention, compression.retention)
        or models.Retention.FULL,
        min_fidelity=compression.min_fidelity if compression.HasField("min_fidelity") else None,
        codec=_codec(compression.codec),
        token_count=message.token_count,
        kept_token_count=message.kept_token_count,
        full_bytes=message.full_bytes,
        stored_bytes=message.stored_bytes,
        index_bytes=message.index_bytes,
        bytes_by_tier={tier: each.size_bytes for each in message.bytes_by_tier if (tier := _tier(each.tier))},
        tier=_tier(message.tier),
        create_time=_time(message.create_time),
        update_time=_time(message.update_time),
        expire_time=_time(message.expire_time),
        last_used_time=_time(message.last_used_time),
        display_name=message.display_name,
        labels=dict(message.labels),
        alias=message.alias,
        pinned=message.pinned,
        hit_count=message.hit_count,
        fidelity=message.fidelity,
        durability=_enum(models.Durability, cache_pb2.Durability, message.durability)
        or models.Durability.DEVICE,
        creation=creation,
    )


def read_shown(message: cache_pb2.GetCacheResponse | cache_pb2.UpdateCacheResponse) -> models.Cache:
    return read_cache(message.cache)


def read_page(message: cache_pb2.ListCachesResponse) -> tuple[list[models.Cache], str]:
    return [read_cache(each) for each in message.caches], message.next_page_token


def read_created(message: cache_pb2.CacheCreated) -> models.Cache:
    creation = models.Creation(
        is_hit=message.is_hit,
        reused_tokens=message.reused_token_count,
        prefill_s=_seconds(message.prefill_duration),
        queue_s=_seconds(message.queue_duration),
    )
    return read_cache(message.cache, creation)


def read_progress(message: cache_pb2.PrefillProgress) -> models.Progress:
    return models.Progress(message.done_token_count, message.token_count, message.reused_token_count)


def read_deletion(message: cache_pb2.DeleteCacheResponse) -> models.Deletion:
    return models.Deletion(_tiers(message.confirmed_tiers), _tiers(message.unreachable_tiers))


def read_chunk(message: generation_pb2.GenerateResponse) -> models.Chunk:
    return models.Chunk(
        index=message.index,
        text=message.text,
        token_ids=tuple(message.token_ids),
        logprobs=tuple(_logprob(each) for each in message.logprobs),
        finish_reason=_enum(models.FinishReason, generation_pb2.FinishReason, message.finish_reason),
        usage=read_usage(message.usage) if message.HasField("usage") else None,
    )


def read_usage(message: generation_pb2.Usage) -> models.Usage:
    return models.Usage(
        prompt_tokens=message.prompt_tokens,
        cached_tokens=message.cached_tokens,
        kept_tokens=message.kept_tokens,
        generated_tokens=message.generated_tokens,
        source_tier=_tier(message.source_tier),
        miss_reason=_enum(models.MissReason, generation_pb2.MissReason, message.miss_reason),
        diverged_at=message.diverged_at if message.HasField("diverged_at") else None,
        fidelity=message.fidelity,
        time_to_first_token_s=_seconds(message.time_to_first_token),
        queue_s=_seconds(message.queue_duration),
        blocks_fetched=message.blocks_fetched,
        bytes_fetched=message.bytes_fetched,
        fetch_s=_seconds(message.fetch_duration),
        device_bytes=message.device_bytes,
        tail_bytes=message.tail_bytes,
        selections=message.selections,
        is_recomputed=message.is_recomputed,
    )


def read_model(message: model_pb2.Model) -> models.Model:
    return models.Model(
        name=message.name,
        digest=message.digest,
        architecture=message.architecture,
        vocab_size=message.vocab_size,
        max_tokens=message.max_tokens,
        num_layers=message.num_layers,
        num_kv_heads=message.num_kv_heads,
        head_dim=message.head_dim,
        window_size=message.window_size,
        dtype=message.dtype,
        kv_bytes_per_token=message.kv_bytes_per_token,
        methods=tuple(message.methods),
        default_codec=_codec(message.default_codec),
    )


def read_shown_model(message: model_pb2.GetModelResponse) -> models.Model:
    return read_model(message.model)


def read_token_count(message: model_pb2.CountTokensResponse) -> int:
    return message.token_count


def read_token_ids(message: model_pb2.TokenizeResponse) -> tuple[int, ...]:
    return tuple(message.token_ids)


def read_text(message: model_pb2.DetokenizeResponse) -> str:
    return message.text


def read_worker(message: model_pb2.WorkerStatus) -> models.WorkerStatus:
    return models.WorkerStatus(
        is_ready=message.is_ready,
        is_draining=message.is_draining,
        heartbeat_age_s=_seconds(message.heartbeat_age),
        running_count=message.running_count,
        waiting_count=message.waiting_count,
        tiers=tuple(_tier_status(tier, each) for each in message.tiers if (tier := _tier(each.tier))),
    )


def _tier_status(tier: models.Tier, message: model_pb2.TierStatus) -> models.TierStatus:
    health = model_pb2.TierHealth.Name(message.health).removeprefix("TIER_HEALTH_").lower()
    return models.TierStatus(tier, health, message.capacity_bytes, message.used_bytes)


def _logprob(message: generation_pb2.TokenLogprob) -> models.TokenLogprob:
    top = tuple((each.token_id, each.logprob) for each in message.top)
    return models.TokenLogprob(message.token_id, message.logprob, top)


def _codec(number: int) -> models.Codec:
    """A service that does not say has only one."""
    return _enum(models.Codec, types_pb2.Codec, number) or models.Codec.EXACT


def _tier(number: int) -> models.Tier | None:
    return _enum(models.Tier, types_pb2.Tier, number)


def _tiers(numbers: Iterable[int]) -> tuple[models.Tier, ...]:
    return tuple(tier for number in numbers if (tier := _tier(number)))


def _enum(enum: type[E], wire: Any, number: int) -> E | None:
    """TIER_DEVICE → Tier.DEVICE: the members carry the wire's names behind a common prefix."""
    value = wire.DESCRIPTOR.values_by_number.get(number)
    if value is None:
        return None
    return next((member for member in enum if value.name.endswith(f"_{member.name}")), None)


def _seconds(message: Duration) -> float:
    return float(message.seconds + message.nanos / 1e9)


def _time(message: Timestamp) -> datetime:
    return message.ToDatetime(UTC)
