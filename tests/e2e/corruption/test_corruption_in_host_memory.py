"""A bit that fell over in host memory is found: fetched from Redis, or computed again where that has nothing."""

from __future__ import annotations

import pytest
from asking import answer, prefilled_tokens
from cache_kinds import cache_kinds
from forgetting import forget_the_device
from redis_server import RedisServer
from running_service import RunningService
from stored_caches import (
    QUESTION,
    check_mended,
    corrupt_count,
    create_and_ask,
    entry_of,
)

from windowkv_client import Client
from windowkv_service.cache.frame import HEADER_BYTES
from windowkv_service.cache.tiers.host import HostTier

KINDS = cache_kinds("snapkv")


def poke(worker: RunningService, address: bytes, place: int) -> None:
    host = worker.resources.tiers[0]
    assert isinstance(host, HostTier)
    raw = host.raw(address)
    assert raw is not None
    raw[place] ^= 0x10


@pytest.mark.parametrize("place", [0, 30, HEADER_BYTES - 1, HEADER_BYTES, -1])
def test_a_bit_that_fell_over_in_host_memory_is_fetched_from_redis(
    client: Client, worker: RunningService, place: int
) -> None:
    name, expected = create_and_ask(client, kept_ratio=0.4)
    entry, failures = entry_of(worker, name), corrupt_count(worker, "host")
    poke(worker, entry.block_addresses[0][0], place)
    poke(worker, entry.index_addresses[0], place)
    worker.ask(forget_the_device)
    prefilled = prefilled_tokens(worker)
    said = answer(client, QUESTION, name)
    assert said.token_ids == expected
    assert (said.usage.source_tier, said.usage.is_recomputed) == ("redis", False)
    assert corrupt_count(worker, "host") == failures + 2
    assert prefilled_tokens(worker) == prefilled


@pytest.mark.parametrize("kind", KINDS)
def test_damage_in_host_memory_without_redis_is_computed_again(
    client: Client, worker: RunningService, redis: RedisServer, kind: str
) -> None:
    name, expected = create_and_ask(client, **KINDS[kind])
    for address in entry_of(worker, name).addresses:
        poke(worker, address, -1)
    redis.flush()
    worker.ask(forget_the_device)
    said = answer(client, QUESTION, name)
    assert said.token_ids == expected
    assert (said.usage.is_recomputed, said.usage.miss_reason) == (True, "corrupt")
    check_mended(client, worker, name, expected)


def test_swapped_blocks_in_host_memory_are_found_out(client: Client, worker: RunningService) -> None:
    name, expected = create_and_ask(client, kept_ratio=1.0)
    entry, host = entry_of(worker, name), worker.resources.tiers[0]
    assert isinstance(host, HostTier)
    one, other = host.raw(entry.block_addresses[0][2]), host.raw(entry.block_addresses[0][3])
    assert one is not None
    assert other is not None
    one[:], other[:] = bytes(other), bytes(one)
    failures = corrupt_count(worker, "host")
    worker.ask(forget_the_device)
    assert answer(client, QUESTION, name).token_ids == expected
    assert corrupt_count(worker, "host") == failures + 2
