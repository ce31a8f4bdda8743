"""The forms a Redis URL may have."""

from __future__ import annotations

import pytest

from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.cache.tiers.redis.url import RedisTarget, Topology, parse


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "rediss://user:p%40ss@host:1/2",
        "unix:///run/redis.sock?db=3",
        "redis://[::1]:6380/0",
    ],
)
def test_a_single_server_is_left_to_redis_py(url: str) -> None:
    assert parse(url) == RedisTarget(Topology.SINGLE, url=url)


def test_sentinel() -> None:
    target = parse("redis+sentinel://me:p%40ss%2Fword@one:1,two,[::1]:3/main/2?sentinel_password=s")
    assert target.topology is Topology.SENTINEL
    assert target.hosts == (("one", 1), ("two", 26379), ("::1", 3))
    assert (target.service, target.db) == ("main", 2)
    assert target.credentials == {"username": "me", "password": "p@ss/word"}
    assert dict(target.options) == {"sentinel_password": "s"}
    assert not target.is_tls


def test_a_password_without_a_user() -> None:
    assert parse("redis+sentinel://:secret@one/main").credentials == {"password": "secret"}


def test_cluster_over_tls() -> None:
    target = parse("rediss+cluster://one:7000,two:7001?ssl_ca_certs=/ca.pem")
    assert target.topology is Topology.CLUSTER
    assert target.hosts == (("one", 7000), ("two", 7001))
    assert target.is_tls
    assert dict(target.options) == {"ssl_ca_certs": "/ca.pem"}
    assert target.credentials == {}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://localhost",
        "localhost:6379",
        "redis+other://one",
        "redis+sentinel://one:1",
        "redis+sentinel://one:1/main/two",
        "redis+sentinel://one:port/main",
        "redis+sentinel://one,/main",
        "redis+sentinel://one/main?sll=1",
        "redis+cluster://one/3",
        "redis+cluster://",
        "redis+cluster://one?sentinel_password=s",
        "redis://localhost:port",
        "redis://localhost/0?no_such_option=1",
        "redis://localhost/0?protocol=3",
    ],
)
def test_what_is_no_redis_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError):
        RedisTier(url)


def test_passwords_do_not_show() -> None:
    target = parse("redis+cluster://me:secret@one?ssl_keyfile=private")
    assert "secret" not in repr(target)
    assert "private" not in repr(target)
