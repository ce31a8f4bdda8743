"""From a parsed URL to a redis-py client: passwords, TLS, Sentinel and cluster slots are redis-py's
matter."""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.connection import ConnectionPool
from redis.retry import Retry
from redis.sentinel import Sentinel

from windowkv_service.cache.tiers.redis.url import RedisTarget, Topology


def connect(target: RedisTarget, timeout_s: float) -> Any:
    """A client; only a cluster's connects at once. timeout_s bounds what redis-py says itself: passwords,
    discovery. ValueError for options that no connection takes."""
    options: dict[str, Any] = {
        "socket_connect_timeout": timeout_s,
        "socket_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,  # what resp.py speaks; under it nothing arrives unasked
    }
    if target.topology is Topology.SINGLE:
        pool = ConnectionPool.from_url(target.url, **options)
        return redis.Redis.from_pool(_checked(pool))
    options |= target.credentials | _tls(target)
    if target.topology is Topology.SENTINEL:
        return _through_sentinel(target, options)
    nodes = [ClusterNode(host, port) for host, port in target.hosts]  # type: ignore[no-untyped-call]
    client = RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
    _stop_retrying(client)
    return client


def disconnect(client: Any) -> None:
    """Close every connection, those to the sentinels too."""
    client.close()
    sentinels = getattr(getattr(client, "connection_pool", None), "sentinel_manager", None)
    if sentinels is not None:
        sentinels.close()


def rediscover(client: RedisCluster) -> None:
    """Learn which node has which slots now."""
    client.nodes_manager.initialize()
    _stop_retrying(client)


def _stop_retrying(client: RedisCluster) -> None:
    """A node that is gone costs one attempt, not seconds: the client does not hand its own policy down."""
    for node in client.get_primaries():  # type: ignore[no-untyped-call]
        client.get_redis_connection(node).connection_pool.set_retry(Retry(NoBackoff(), 0))


def _through_sentinel(target: RedisTarget, options: dict[str, Any]) -> Any:
    """The sentinels may have users of their own; TLS and time limits are the same for them."""
    shared = ("socket_timeout", "socket_connect_timeout", "protocol", *_tls(target))
    own = {name: options[name] for name in shared}
    given = dict(target.options)
    for name in ("username", "password"):
        if f"sentinel_{name}" in given:
            own[name] = given[f"sentinel_{name}"]
    sentinel = Sentinel(target.hosts, sentinel_kwargs=own, **options)  # type: ignore[no-untyped-call]
    return sentinel.master_for(target.service, db=target.db)  # type: ignore[no-untyped-call]


def _checked(pool: ConnectionPool) -> ConnectionPool:
    """Refuse now what would be refused at the first connection."""
    try:
        pool.connection_class(**pool.connection_kwargs)
    except (TypeError, redis.RedisError) as error:
        raise ValueError(f"Redis URL: {error}") from None
    if pool.connection_kwargs["protocol"] != 2:
        raise ValueError("Redis URL: the protocol cannot be chosen")
    return pool


def _tls(target: RedisTarget) -> dict[str, Any]:
    if not target.is_tls:
        return {}
    given: dict[str, Any] = {name: value for name, value in target.options if name.startswith("ssl_")}
    if "ssl_check_hostname" in given:
        given["ssl_check_hostname"] = given["ssl_check_hostname"].lower() in ("1", "true", "yes")
    return {"ssl": True} | given
