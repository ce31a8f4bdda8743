"""An alias means the same to every worker, and to those that come later."""

from __future__ import annotations

import pytest
from asking import asking, create_in_redis, frame_keys, random_tokens
from eventually import eventually
from redis_server import RedisServer
from running_service import START

from windowkv_client import CacheNotFound

DOCUMENT = random_tokens(1, 157)


def test_the_alias_alone_finds_the_cache_after_a_restart(start: START) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, alias="latest")
    with start() as worker, asking(worker) as client:
        assert client.caches.get("aliases/latest").name == cache.name


def test_a_repointed_alias_stays_repointed_after_a_restart(start: START) -> None:
    with start() as worker, asking(worker) as client:
        older = create_in_redis(client, token_ids=random_tokens(3, 40), alias="latest")
        newer = create_in_redis(client, token_ids=random_tokens(4, 40), alias="latest")
    for asked_first in (older, newer):
        with start() as worker, asking(worker) as client:
            client.caches.get(asked_first)
            assert client.caches.get("aliases/latest").name == newer.name
            assert client.caches.get(older).alias == ""


def test_an_alias_that_one_worker_repoints_leads_the_others_there_at_once(start: START) -> None:
    with start() as one, start() as other, asking(one) as client, asking(other) as neighbour:
        older = create_in_redis(client, token_ids=random_tokens(3, 40), alias="latest")
        assert neighbour.caches.get("aliases/latest").name == older.name
        newer = create_in_redis(neighbour, token_ids=random_tokens(4, 40), alias="latest")
        assert client.caches.get("aliases/latest").name == newer.name
        client.caches.update(older, alias="latest")
        assert eventually(lambda: neighbour.caches.get("aliases/latest").name == older.name)
        client.caches.delete(older)
        with pytest.raises(CacheNotFound):
            client.caches.get("aliases/latest")


def test_an_alias_that_was_taken_away_stays_away(start: START) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=random_tokens(3, 40), alias="latest")
        client.caches.update(cache, alias="")
        with pytest.raises(CacheNotFound):
            client.caches.get("aliases/latest")
    with start() as worker, asking(worker) as client:
        assert client.caches.get(cache).alias == ""
        with pytest.raises(CacheNotFound):
            client.caches.get("aliases/latest")


def test_an_alias_lives_as_long_as_its_cache_is_prolonged(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=random_tokens(3, 40), alias="latest", ttl=60)
        client.caches.update(cache, ttl="1h")
        assert eventually(lambda: min(map(redis.client.pttl, frame_keys(redis))) > 3_000_000)
