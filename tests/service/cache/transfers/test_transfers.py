"""Copies beside the engine: what is written, and found again."""

from __future__ import annotations

from collections.abc import Sequence

from cache_events import address
from copying_worker import (
    ABSENT,
    ADDRESSES,
    BOTH,
    CORRUPT,
    FRAMES,
    MANIFEST,
    Start,
    Worker,
)
from eventually import eventually
from redis_server import RedisServer

from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.tiers.base import Found
from windowkv_service.cache.tiers.redis.tier import KEY_PREFIX
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import DeleteReceipt, Tier


def test_a_spill_reaches_both_tiers_and_is_listed(worker: Worker) -> None:
    assert worker.spill() == BOTH
    assert all(worker.host.has(ADDRESSES))
    assert all(worker.below.has(ADDRESSES))
    assert worker.manifest() == MANIFEST
    assert worker.listed() == [MANIFEST]


def test_without_redis_a_spill_reaches_host_memory(start: Start) -> None:
    worker = start(None)
    assert worker.spill() == {Tier.HOST}
    assert worker.fetch() == (FRAMES, [Tier.HOST] * 5)
    assert (worker.manifest(), worker.listed(), worker.probe([ADDRESSES])) == (ABSENT, [], 1)
    assert worker.drop() == DeleteReceipt((Tier.HOST,), ())


def test_frames_come_from_the_nearest_tier_that_has_them(worker: Worker) -> None:
    worker.spill()
    worker.host.drop(ADDRESSES[:2])
    found, sources = worker.fetch([*ADDRESSES, address(7)])
    assert found == [*FRAMES, ABSENT]
    assert sources == [Tier.REDIS, Tier.REDIS, Tier.HOST, Tier.HOST, Tier.HOST, None]


def test_what_came_from_redis_is_in_host_memory_afterwards(worker: Worker) -> None:
    worker.spill()
    worker.host.clear()
    worker.fetch()
    assert worker.fetch() == (FRAMES, [Tier.HOST] * 5)


def test_a_fetch_says_how_much_it_moved(worker: Worker) -> None:
    worker.spill()
    worker.host.drop(ADDRESSES[:2])
    job = worker.transfers.submit_fetch(ADDRESSES, FrameKind.BLOCK, budget_s=5.0)
    worker.flush()
    assert job.result.is_complete
    assert job.result.size_bytes == sum(frame.size_bytes for frame in FRAMES)
    size = FRAMES[0].size_bytes
    assert worker.events.bytes_moved == {
        (Tier.DEVICE, Tier.HOST): 5 * size,
        (Tier.DEVICE, Tier.REDIS): 5 * size,
        (Tier.HOST, Tier.DEVICE): 3 * size,
        (Tier.REDIS, Tier.DEVICE): 2 * size,
    }


def test_a_frame_corrupt_in_host_memory_comes_from_redis_and_is_healed(worker: Worker) -> None:
    worker.spill()
    raw = worker.host.raw(ADDRESSES[0])
    assert raw is not None
    raw[200] ^= 1
    assert worker.fetch() == (FRAMES, [Tier.REDIS] + [Tier.HOST] * 4)
    assert worker.fetch() == (FRAMES, [Tier.HOST] * 5)


def test_a_frame_corrupt_everywhere_is_said_to_be_corrupt(worker: Worker, server: RedisServer) -> None:
    worker.spill()
    worker.host.clear()
    server.flip_bit(KEY_PREFIX + ADDRESSES[0].hex().encode(), 1500)
    assert worker.fetch()[0] == [CORRUPT, *FRAMES[1:]]


def test_a_frame_corrupt_here_and_absent_below_is_said_to_be_corrupt(worker: Worker) -> None:
    worker.spill()
    worker.below.drop(ADDRESSES)
    raw = worker.host.raw(ADDRESSES[0])
    assert raw is not None
    raw[200] ^= 1
    assert worker.fetch(ADDRESSES[:1]) == ([CORRUPT], [None])


def test_a_spill_that_ends_between_two_looks_is_found(start: Start) -> None:
    worker = start(None)
    look = worker.host.get

    def get(addresses: Sequence[Address], kind: FrameKind) -> list[Found]:
        found = look(addresses, kind)
        worker.host.put(FRAMES, 60.0)  # what the spill's lane does just now
        return found

    worker.host.get = get  # type: ignore[method-assign]
    assert worker.fetch() == (FRAMES, [Tier.HOST] * 5)


def test_swapped_values_in_redis_are_found(worker: Worker, server: RedisServer) -> None:
    worker.spill()
    worker.host.clear()
    server.swap(*(KEY_PREFIX + one.hex().encode() for one in ADDRESSES[:2]))
    assert worker.fetch()[0] == [CORRUPT, CORRUPT, *FRAMES[2:]]


def test_a_spill_under_way_is_found_and_its_memory_is_free_afterwards(worker: Worker) -> None:
    memory = bytearray(bytes(FRAMES[0].payload))
    worker.host.gate.clear()
    spill = worker.transfers.submit_spill(
        [Frame.of(FrameKind.BLOCK, ADDRESSES[0], memory)], manifest=None, ttl_s=60.0
    )
    fetch = worker.transfers.submit_fetch(ADDRESSES[:1], FrameKind.BLOCK, budget_s=5.0)
    probe = worker.transfers.submit_probe([ADDRESSES[:1]])
    assert eventually(lambda: fetch.is_done and probe.is_done)
    assert not spill.is_done
    worker.host.gate.set()
    worker.flush()
    memory[:] = bytes(len(memory))
    assert fetch.result.found == FRAMES[:1]
    assert probe.result.leading_windows == 1
    assert worker.fetch(ADDRESSES[:1])[0] == FRAMES[:1]
    worker.host.clear()
    assert worker.fetch(ADDRESSES[:1]) == (FRAMES[:1], [Tier.REDIS])


def test_two_spills_of_the_same_bytes_do_not_disturb_each_other(worker: Worker) -> None:
    worker.host.gate.clear()
    first = worker.transfers.submit_spill(FRAMES[:1], manifest=None, ttl_s=60.0)
    memory = bytearray(bytes(FRAMES[0].payload))
    worker.transfers.submit_spill(
        [Frame.of(FrameKind.BLOCK, ADDRESSES[0], memory)], manifest=None, ttl_s=60.0
    )
    worker.host.gate.set()
    worker.flush()
    assert first.result.tiers == BOTH
    assert worker.fetch(ADDRESSES[:1])[0] == FRAMES[:1]
