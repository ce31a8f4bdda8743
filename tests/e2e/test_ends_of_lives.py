"""A cache that is deleted, or whose time has passed, leaves nothing in any tier."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from asking import answer, asking, create_in_redis, frame_keys, prefilled_tokens, random_tokens
from cache_kinds import cache_kinds
from eventually import eventually
from redis_server import RedisServer
from reference_generation import plain_generate
from running_service import START

from windowkv_client import CacheNotFound
from windowkv_service.cache.tiers.host import HostTier

DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
KINDS = cache_kinds("kvzip")


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_cache_leaves_nothing_in_any_tier(start: START, redis: RedisServer, kind: str) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, alias="gone", **KINDS[kind])
        assert frame_keys(redis)
        receipt = client.caches.delete(cache)
        assert set(receipt.confirmed) == {"device", "host", "redis"}
        assert frame_keys(redis) == []
        assert worker.resources.tiers[0].status().used_bytes == 0
        for name in (cache.name, "aliases/gone"):
            with pytest.raises(CacheNotFound):
                client.caches.get(name)
        assert answer(client, DOCUMENT).usage.cached_tokens == 0


def test_deleting_after_a_restart_reaches_redis(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT)
    with start() as worker, asking(worker) as client:
        assert "redis" in client.caches.delete(cache).confirmed
        assert frame_keys(redis) == []


def test_blocks_that_another_cache_shares_survive_a_deletion(
    start: START, redis: RedisServer, model: Path
) -> None:
    shorter = DOCUMENT[:120]
    with start() as worker, asking(worker) as client:
        gone = create_in_redis(client, token_ids=shorter, kept_ratio=1.0)
        kept = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=1.0)
        client.caches.delete(gone)
        expected = plain_generate(model, DOCUMENT + QUESTION, 14)
        assert answer(client, QUESTION, kept).token_ids == expected
    with start() as worker, asking(worker) as client:
        assert answer(client, QUESTION, kept).token_ids == expected
        assert prefilled_tokens(worker) == 0


def test_an_expired_cache_leaves_every_tier_by_itself(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, ttl=2.0)
        assert (cache.durability, cache.stored_bytes > 0) == ("redis", True)
        assert eventually(lambda: not redis.all_keys())
        assert eventually(lambda: worker.resources.tiers[0].status().used_bytes == 0)
        assert eventually(lambda: worker.ask(used_blocks) == 0)
        with pytest.raises(CacheNotFound, match="expired"):
            client.caches.get(cache)


def used_blocks(resources: Any) -> int:
    return sum(pool.num_used + pool.num_cached for pool in resources.device.pools.values())


def test_what_a_restarted_worker_fetched_lives_no_longer_than_its_cache(start: START) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, ttl=60.0)
    with start() as worker, asking(worker) as client:
        answer(client, QUESTION, cache)
        host = worker.resources.tiers[0]
        assert isinstance(host, HostTier)
        lives = [kept.expires_at - time.monotonic() for kept in host._kept.values()]
        assert lives
        assert max(lives) < 60.0


def test_a_shortened_life_ends_everywhere_when_it_says(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, ttl="1h")
        client.caches.update(cache, ttl=0.5)
        assert eventually(lambda: not frame_keys(redis))
        assert eventually(lambda: worker.resources.tiers[0].status().used_bytes == 0)
        with pytest.raises(CacheNotFound, match="expired"):
            client.caches.get(cache)


def test_a_prolonged_life_outlasts_a_restart(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, ttl=60.0)
        prolonged = client.caches.update(cache, ttl="1h")
    assert min(redis.client.pttl(key) for key in redis.all_keys()) > 3_000_000
    with start() as worker, asking(worker) as client:
        assert client.caches.get(cache).expire_time == prolonged.expire_time
