"""Drops that Redis did not hear: paid late, and only if still wanted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cache_events import RecordedEvents, address, block
from redis_server import running

from windowkv_service.cache.debts import Debts
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.inflight import InFlight
from windowkv_service.cache.jobs import ManifestRef, ManifestWrite
from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.cache.writes import Spill

FRAMES = [block(1), block(2)]
ADDRESSES = [frame.address for frame in FRAMES]
MANIFEST = Frame.of(FrameKind.MANIFEST, address(9), b"manifest")
REF = ManifestRef(b"list", MANIFEST.address)


@pytest.fixture
def redis() -> Iterator[RedisTier]:
    with running() as server:
        tier = RedisTier(server.url)
        assert all(tier.put(FRAMES, 60.0))
        assert tier.put_manifest(b"list", MANIFEST, 60.0)
        yield tier
        tier.close()


def spill(redis: RedisTier, debts: Debts, frames: list[Frame], write: ManifestWrite | None) -> None:
    written = Spill(frames, write, 60.0, HostTier(1 << 20), InFlight(), debts, RecordedEvents())
    written.to_redis(redis)
    written.end()


def test_what_is_owed_is_dropped_once(redis: RedisTier) -> None:
    debts = Debts()
    debts.owe(ADDRESSES, REF)
    assert debts.is_owed(MANIFEST.address)
    debts.pay(redis)
    assert redis.has([*ADDRESSES, MANIFEST.address]) == [False] * 3
    assert redis.list_manifests(b"list") == []
    assert not debts.is_owed(MANIFEST.address)
    redis.put(FRAMES, 60.0)
    debts.pay(redis)
    assert redis.has(ADDRESSES) == [True, True]


def test_what_was_spilled_since_is_not_dropped(redis: RedisTier) -> None:
    debts = Debts()
    debts.owe(ADDRESSES, REF)
    spill(redis, debts, FRAMES[:1], None)
    debts.pay(redis)
    assert redis.has([*ADDRESSES, MANIFEST.address]) == [True, False, False]


def test_a_manifest_written_since_and_what_it_relies_on_are_not_dropped(redis: RedisTier) -> None:
    debts = Debts()
    debts.owe(ADDRESSES, REF)
    spill(redis, debts, [], ManifestWrite(b"list", MANIFEST, ADDRESSES))
    debts.pay(redis)
    assert redis.has([*ADDRESSES, MANIFEST.address]) == [True] * 3
    assert redis.list_manifests(b"list") == [MANIFEST]
    assert not debts.is_owed(MANIFEST.address)


def test_a_debt_that_cannot_be_paid_stays(redis: RedisTier) -> None:
    debts = Debts()
    debts.owe(ADDRESSES, REF)
    redis.close()
    debts.pay(redis)
    assert debts.is_owed(MANIFEST.address)
