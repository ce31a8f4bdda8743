"""CacheService: requests wire → domain, caches domain → wire."""

from __future__ import annotations

from windowkv.v1 import cache_pb2
from windowkv_service.domain.requests import (
    Compression,
    CreateRequest,
    Durability,
    ListRequest,
    Retention,
    Task,
)
from windowkv_service.domain.results import (
    CacheInfo,
    CachePage,
    CreateOutcome,
    DeleteReceipt,
    ModelInfo,
    PrefillProgress,
)
from windowkv_service.errors import UnknownMethod
from windowkv_service.rpc.call import Call
from windowkv_service.rpc.convert.enums import CACHE_STATE, CODEC, DURABILITY, RETENTION, TASK, TIER
from windowkv_service.rpc.convert.expiry import to_ttl_s
from windowkv_service.rpc.convert.model import check_model
from windowkv_service.rpc.convert.times import to_duration, to_timestamp
from windowkv_service.rpc.names import check_alias, check_display_name, check_label_filter, check_labels


def to_create_request(
    request: cache_pb2.CreateCacheRequest, call: Call, model: ModelInfo, now: float
) -> CreateRequest:
    """All but the tokens. now is seconds since the epoch, from which an expire_time is counted."""
    cache = request.cache
    check_model(cache.model, model, "cache.model")
    return CreateRequest(
        request_id=call.request_id,
        tenant=call.tenant,
        deadline=call.deadline,
        token_ids=(),
        compression=to_compression(cache.compression, model),
        ttl_s=to_ttl_s(cache, now),
        pinned=cache.pinned,
        display_name=check_display_name(cache.display_name, "cache.display_name"),
        labels=check_labels(cache.labels, "cache.labels"),
        alias=check_alias(cache.alias, "cache.alias"),
        durability=DURABILITY.to_domain(cache.durability, "cache.durability", default=Durability.DEVICE),
    )


def to_compression(compression: cache_pb2.Compression, model: ModelInfo) -> Compression:
    """What is absent takes the domain's default, the codec the service's; the domain refuses what is out of range."""
    method = compression.method or Compression.method
    if method not in model.methods:
        known = ", ".join(model.methods)
        raise UnknownMethod(f"{method!r} is none of: {known}", field="cache.compression.method")
    return Compression(
        method=method,
        kept_ratio=compression.kept_ratio if compression.HasField("kept_ratio") else Compression.kept_ratio,
        task=TASK.to_domain(compression.task, "cache.compression.task", default=Task.AUTO),
        retention=RETENTION.to_domain(
            compression.retention, "cache.compression.retention", default=Retention.FULL
        ),
        min_fidelity=compression.min_fidelity if compression.HasField("min_fidelity") else None,
        codec=CODEC.to_domain(compression.codec, "cache.compression.codec", default=model.default_codec),
    )


def to_wire_compression(compression: Compression) -> cache_pb2.Compression:
    return cache_pb2.Compression(
        method=compression.method,
        kept_ratio=compression.kept_ratio,
        task=TASK.to_wire(compression.task),
        retention=RETENTION.to_wire(compression.retention),
        min_fidelity=compression.min_fidelity,
        codec=CODEC.to_wire(compression.codec),
    )


def to_create_response(event: PrefillProgress | CreateOutcome) -> cache_pb2.CreateCacheResponse:
    if isinstance(event, PrefillProgress):
        progress = cache_pb2.PrefillProgress(
            done_token_count=event.num_done,
            token_count=event.num_tokens,
            reused_token_count=event.num_reused,
        )
        return cache_pb2.CreateCacheResponse(progress=progress)
    created = cache_pb2.CacheCreated(
        cache=to_wire_cache(event.cache),
        is_hit=event.is_hit,
        reused_token_count=event.num_reused,
        prefill_duration=to_duration(event.prefill_s),
        queue_duration=to_duration(event.queue_s),
    )
    return cache_pb2.CreateCacheResponse(created=created)


def to_list_request(request: cache_pb2.ListCachesRequest, tenant: str) -> ListRequest:
    """Page sizes and tokens are the cache room's to judge: it makes the pages."""
    return ListRequest(
        tenant=tenant,
        page_size=request.page_size,
        page_token=request.page_token,
        label_filter=check_label_filter(request.label_filter, "label_filter"),
    )


def to_list_response(page: CachePage) -> cache_pb2.ListCachesResponse:
    return cache_pb2.ListCachesResponse(
        caches=[to_wire_cache(cache) for cache in page.caches], next_page_token=page.next_page_token
    )


def to_delete_response(receipt: DeleteReceipt) -> cache_pb2.DeleteCacheResponse:
    return cache_pb2.DeleteCacheResponse(
        confirmed_tiers=[TIER.to_wire(tier) for tier in receipt.confirmed],
        unreachable_tiers=[TIER.to_wire(tier) for tier in receipt.unreachable],
    )


def to_wire_cache(cache: CacheInfo) -> cache_pb2.Cache:
    return cache_pb2.Cache(
        name=cache.name,
        model=cache.model,
        display_name=cache.display_name,
        labels=cache.labels,
        alias=cache.alias,
        pinned=cache.pinned,
        expire_time=to_timestamp(cache.expire_time),
        compression=to_wire_compression(cache.compression),
        durability=DURABILITY.to_wire(cache.durability),
        state=CACHE_STATE.to_wire(cache.state),
        create_time=to_timestamp(cache.create_time),
        update_time=to_timestamp(cache.update_time),
        last_used_time=to_timestamp(cache.last_used_time),
        token_count=cache.token_count,
        kept_token_count=cache.kept_token_count,
        full_bytes=cache.full_bytes,
        stored_bytes=cache.stored_bytes,
        index_bytes=cache.index_bytes,
        bytes_by_tier=[
            cache_pb2.TierBytes(tier=TIER.to_wire(tier), size_bytes=size)
            for tier, size in cache.bytes_by_tier.items()
        ],
        tier=TIER.to_wire(cache.tier),
        hit_count=cache.hit_count,
        fidelity=cache.fidelity,
    )
