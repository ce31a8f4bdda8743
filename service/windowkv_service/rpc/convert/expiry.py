"""When a cache ends: ttl or expire_time on the wire, seconds from now in the domain."""

from __future__ import annotations

from windowkv.v1 import cache_pb2
from windowkv_service.errors import BadTtl
from windowkv_service.rpc.convert.times import to_seconds

MAX_TTL_S = 315_576_000_000  # what a protobuf Duration may say; the engine has a limit of its own below


def to_ttl_s(cache: cache_pb2.Cache, now: float) -> float | None:
    """Seconds from now, None where the caller set neither; now is seconds since the epoch."""
    if cache.HasField("ttl"):
        return _checked(to_seconds(cache.ttl), "cache.ttl", "a ttl is more than 0 seconds")
    if cache.HasField("expire_time"):
        ttl_s = to_seconds(cache.expire_time) - now
        return _checked(ttl_s, "cache.expire_time", "an expire_time is in the future")
    return None


def _checked(ttl_s: float, field: str, rule: str) -> float:
    if not 0.0 < ttl_s <= MAX_TTL_S:
        raise BadTtl(rule, field=field)
    return ttl_s
