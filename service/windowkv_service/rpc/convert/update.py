"""UpdateCache: which of a cache's fields a caller changes, and to what."""

from __future__ import annotations

from windowkv.v1 import cache_pb2
from windowkv_service.domain.requests import UpdateRequest
from windowkv_service.errors import BadTtl, BadUpdateMask
from windowkv_service.rpc.convert.expiry import to_ttl_s
from windowkv_service.rpc.names import check_alias, check_cache_name, check_display_name, check_labels

EXPIRATION = ("ttl", "expire_time")
MUTABLE = ("pinned", "display_name", "labels", "alias")
ALL = "*"
MASK = "update_mask"


def to_update_request(request: cache_pb2.UpdateCacheRequest, tenant: str, now: float) -> UpdateRequest:
    """now is seconds since the epoch, from which an expire_time is counted."""
    cache, paths = request.cache, _paths(request)
    return UpdateRequest(
        tenant=tenant,
        name=check_cache_name(cache.name, "cache.name"),
        ttl_s=_ttl_s(cache, now) if paths.intersection(EXPIRATION) else None,
        pinned=cache.pinned if "pinned" in paths else None,
        display_name=check_display_name(cache.display_name, "cache.display_name")
        if "display_name" in paths
        else None,
        labels=check_labels(cache.labels, "cache.labels") if "labels" in paths else None,
        alias=check_alias(cache.alias, "cache.alias") if "alias" in paths else None,
    )


def _paths(request: cache_pb2.UpdateCacheRequest) -> set[str]:
    """The mask's paths; "*" is all that can change, and without a mask it is all that is set."""
    named = set(request.update_mask.paths)
    populated = {field.name for field, _ in request.cache.ListFields()}.intersection(MUTABLE + EXPIRATION)
    if named == {ALL}:
        return populated.union(MUTABLE)
    unknown = sorted(named.difference(MUTABLE + EXPIRATION))
    if unknown:
        raise BadUpdateMask(f"{unknown[0]!r} cannot be updated", field=MASK)
    if not named and not populated:
        raise BadUpdateMask("nothing to update", field=MASK)
    return named or populated


def _ttl_s(cache: cache_pb2.Cache, now: float) -> float:
    ttl_s = to_ttl_s(cache, now)
    if ttl_s is None:
        raise BadTtl(
            "the update mask names the expiry, but neither ttl nor expire_time is set", field="cache.ttl"
        )
    return ttl_s
