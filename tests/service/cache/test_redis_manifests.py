"""Manifests in Redis: readable by address, listed while they live."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cache_events import address, block
from entries import Clock
from redis_server import RedisServer, running

from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.cache.tiers.redis.tier import LISTED_AT_ONCE


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running() as server:
        yield server


@pytest.fixture
def tier(server: RedisServer) -> Iterator[RedisTier]:
    server.flush()
    tier = RedisTier(server.url)
    yield tier
    tier.close()


def manifest(number: int, payload: bytes = b"manifest") -> Frame:
    return Frame.of(FrameKind.MANIFEST, address(number), payload)


def test_manifests_are_listed_by_their_list_key_those_that_live_longest_first(tier: RedisTier) -> None:
    for number, list_key, ttl_s in ((1, b"mine", 100.0), (2, b"mine", 300.0), (3, b"theirs", 50.0)):
        assert tier.put_manifest(list_key, manifest(number), ttl_s)
    assert tier.list_manifests(b"mine") == [manifest(2), manifest(1)]
    assert tier.list_manifests(b"theirs") == [manifest(3)]
    assert tier.list_manifests(b"nobody's") == []


def test_a_list_of_any_length_is_read_whole(tier: RedisTier) -> None:
    for number in range(2 * LISTED_AT_ONCE + 1):
        assert tier.put_manifest(b"mine", manifest(number), 100.0)
    listed = tier.list_manifests(b"mine")
    assert listed is not None
    assert {one.address for one in listed} == {address(number) for number in range(2 * LISTED_AT_ONCE + 1)}
    assert len(listed) == 2 * LISTED_AT_ONCE + 1


def test_known_manifests_are_not_read_again(tier: RedisTier) -> None:
    for number in range(3):
        tier.put_manifest(b"mine", manifest(number), 100.0 + number)
    assert tier.list_manifests(b"mine", known={address(2), address(0)}) == [manifest(1)]


def test_a_manifest_written_anew_is_listed_once_as_it_is_now(tier: RedisTier) -> None:
    tier.put_manifest(b"mine", manifest(1, b"old"), 100.0)
    tier.put_manifest(b"mine", manifest(1, b"new"), 100.0)
    assert tier.list_manifests(b"mine") == [manifest(1, b"new")]


def test_a_dropped_manifest_is_neither_read_nor_listed(tier: RedisTier, server: RedisServer) -> None:
    tier.put_manifest(b"mine", manifest(1), 100.0)
    assert tier.drop_manifest(b"mine", address(1)) is True
    assert tier.list_manifests(b"mine") == []
    assert server.all_keys() == []


def test_a_manifest_that_redis_evicted_is_not_listed(tier: RedisTier, server: RedisServer) -> None:
    tier.put_manifest(b"mine", manifest(1), 100.0)
    tier.put_manifest(b"mine", manifest(2), 100.0)
    tier.drop([address(1)])
    assert tier.list_manifests(b"mine") == [manifest(2)]


def test_a_corrupt_manifest_is_not_listed(tier: RedisTier, server: RedisServer) -> None:
    tier.put_manifest(b"mine", manifest(1), 100.0)
    server.flip_bit(next(key for key in server.all_keys() if b"list" not in key), 1200)
    assert tier.list_manifests(b"mine") == []


def test_expired_manifests_leave_the_list(server: RedisServer) -> None:
    server.flush()
    clock = Clock(server.client.time()[0])
    tier = RedisTier(server.url, wall=clock)
    tier.put_manifest(b"mine", manifest(1), 100.0)
    clock.now += 150
    assert tier.list_manifests(b"mine") == []
    tier.put_manifest(b"mine", manifest(2), 100.0)
    (list_key,) = (key for key in server.all_keys() if b"list" in key)
    assert server.client.zcard(list_key) == 1
    tier.close()


def test_a_shorter_life_is_taken_over_by_a_manifest(tier: RedisTier, server: RedisServer) -> None:
    """Its owner may let it expire earlier; only shared bytes keep the longest life."""
    tier.put_manifest(b"mine", manifest(1), 1000.0)
    tier.put_manifest(b"mine", manifest(1), 10.0)
    assert all(server.client.pttl(key) <= 10_000 for key in server.all_keys())


def test_a_list_lives_as_long_as_what_it_lists(tier: RedisTier, server: RedisServer) -> None:
    tier.put_manifest(b"mine", manifest(1), 1000.0)
    tier.put_manifest(b"mine", manifest(2), 10.0)
    (list_key,) = (key for key in server.all_keys() if b"list" in key)
    assert server.client.pttl(list_key) > 900_000


def test_every_key_has_a_life(tier: RedisTier, server: RedisServer) -> None:
    tier.put([block(1), block(2)], float("inf"))
    tier.put_manifest(b"mine", manifest(3), 1e12)
    tier.extend([address(1)], 1e30)
    assert len(server.all_keys()) == 4
    assert all(server.client.pttl(key) > 0 for key in server.all_keys())


def test_keys_are_spread_over_a_clusters_slots(tier: RedisTier, server: RedisServer) -> None:
    tier.put([block(number) for number in range(10)], 60.0)
    assert not any(b"{" in key for key in server.all_keys())
