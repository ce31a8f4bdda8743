"""A whole value in another one's place in Redis is not taken for it."""

from __future__ import annotations

import pytest
from asking import create_in_redis
from cache_kinds import cache_kinds
from forgetting import forget_everything
from redis_server import RedisServer
from running_service import RunningService
from stored_caches import (
    OTHER_DOCUMENT,
    ask_after_a_loss,
    check_mended,
    corrupt_count,
    create_and_ask,
    entry_of,
    key,
    read_addresses,
)

from windowkv_client import CacheNotFound, Client

KINDS = cache_kinds("snapkv")


@pytest.mark.parametrize("kind", KINDS)
def test_two_swapped_blocks_are_both_found_out(
    client: Client, worker: RunningService, redis: RedisServer, kind: str
) -> None:
    name, expected = create_and_ask(client, **KINDS[kind])
    entry, failures = entry_of(worker, name), corrupt_count(worker, "redis")
    addresses = read_addresses(entry)
    redis.swap(key(addresses[0]), key(addresses[-1]))
    said = ask_after_a_loss(client, worker, name)
    assert said.token_ids == expected
    assert said.usage.is_recomputed
    assert corrupt_count(worker, "redis") == failures + 2
    check_mended(client, worker, name, expected)


def test_blocks_of_another_layer_group_are_found_out(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=1.0)
    groups = entry_of(worker, name).block_addresses
    redis.swap(key(groups[0][5]), key(groups[1][5]))
    said = ask_after_a_loss(client, worker, name)
    assert (said.token_ids, said.usage.is_recomputed) == (expected, True)


def test_a_block_in_the_place_of_an_index_piece_is_found_out(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    entry = entry_of(worker, name)
    redis.swap(key(entry.block_addresses[0][0]), key(entry.index_addresses[0]))
    said = ask_after_a_loss(client, worker, name)
    assert (said.token_ids, said.usage.is_recomputed) == (expected, True)


def test_swapped_manifests_are_both_not_found(
    client: Client, worker: RunningService, redis: RedisServer
) -> None:
    name, _ = create_and_ask(client, kept_ratio=0.4)
    other = create_in_redis(client, token_ids=OTHER_DOCUMENT).name
    redis.swap(*(key(entry_of(worker, each).manifest_address) for each in (name, other)))
    worker.ask(forget_everything)
    for each in (name, other):
        with pytest.raises(CacheNotFound):
            client.caches.get(each)
