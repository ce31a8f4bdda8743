"""What Redis has lost is computed again, and lies there again."""

from __future__ import annotations

import pytest
from asking import answer, create_in_redis
from cache_kinds import cache_kinds
from forgetting import forget_all_but_the_books, forget_everything
from redis_server import RedisServer
from running_service import RunningService
from stored_caches import (
    DOCUMENT,
    QUESTION,
    ask_after_a_loss,
    check_mended,
    corrupt_count,
    create_and_ask,
    entry_of,
    key,
)

from windowkv_client import CacheNotFound, Client

KINDS = cache_kinds("snapkv")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", ["every third", "all"])
def test_lost_blocks_are_computed_again(
    client: Client, worker: RunningService, redis: RedisServer, kind: str, share: str
) -> None:
    name, expected = create_and_ask(client, **KINDS[kind])
    lost = entry_of(worker, name).addresses[:: 3 if share == "every third" else 1]
    redis.client.delete(*map(key, lost))
    failures = corrupt_count(worker, "redis")
    said = ask_after_a_loss(client, worker, name)
    assert said.token_ids == expected
    assert (said.usage.is_recomputed, said.usage.miss_reason) == (True, "evicted")
    assert corrupt_count(worker, "redis") == failures
    check_mended(client, worker, name, expected)


def test_an_emptied_redis_is_a_cache_not_found_and_a_fresh_one_when_created_again(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    redis.flush()
    worker.ask(forget_everything)
    with pytest.raises(CacheNotFound):
        answer(client, QUESTION, name)
    again = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4)
    assert answer(client, QUESTION, again).token_ids == expected
    check_mended(client, worker, name, expected)


def test_an_emptied_redis_is_filled_again_by_what_is_computed_again(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    redis.flush()
    worker.ask(forget_all_but_the_books)
    said = answer(client, QUESTION, name)
    assert (said.token_ids, said.usage.is_recomputed) == (expected, True)
    check_mended(client, worker, name, expected)
