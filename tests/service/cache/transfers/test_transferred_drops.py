"""Copies beside the engine: drops, and what overtakes them."""

from __future__ import annotations

from copying_worker import (
    ABSENT,
    ADDRESSES,
    BOTH,
    FRAMES,
    MANIFEST,
    REF,
    WRITE,
    Start,
    Worker,
)
from eventually import eventually
from redis_server import RedisServer

from windowkv_service.cache.frame import FrameKind
from windowkv_service.domain.results import DeleteReceipt, Tier


def test_a_drop_does_not_overtake_the_spill_before_it(worker: Worker, server: RedisServer) -> None:
    worker.host.gate.clear()
    worker.transfers.submit_spill(FRAMES, manifest=WRITE, ttl_s=60.0)
    drop = worker.transfers.submit_drop(ADDRESSES, REF)
    worker.host.gate.set()
    worker.flush()
    assert drop.result == DeleteReceipt((Tier.HOST, Tier.REDIS), ())
    assert not any(worker.host.has(ADDRESSES))
    assert server.all_keys() == []


def test_a_spill_after_a_drop_stays(worker: Worker) -> None:
    worker.host.gate.clear()
    worker.transfers.submit_spill(FRAMES, manifest=WRITE, ttl_s=60.0)
    worker.transfers.submit_drop(ADDRESSES, REF)
    worker.transfers.submit_spill(FRAMES, manifest=WRITE, ttl_s=60.0)
    worker.host.gate.set()
    worker.flush()
    assert all(worker.host.has(ADDRESSES))
    assert all(worker.below.has(ADDRESSES))
    assert worker.listed() == [MANIFEST]


def test_what_is_being_dropped_is_not_read_from_its_spill(worker: Worker) -> None:
    worker.host.gate.clear()
    worker.transfers.submit_spill(FRAMES, manifest=None, ttl_s=60.0)
    worker.transfers.submit_drop(ADDRESSES, None)
    fetch = worker.transfers.submit_fetch(ADDRESSES, FrameKind.BLOCK, budget_s=5.0)
    assert eventually(lambda: fetch.is_done)
    assert fetch.result.found == [ABSENT] * 5


def test_a_fetch_does_not_bring_back_what_was_dropped_meanwhile(worker: Worker) -> None:
    worker.spill()
    worker.host.clear()
    worker.below.gate.clear()
    fetch = worker.transfers.submit_fetch(ADDRESSES, FrameKind.BLOCK, budget_s=5.0)
    assert worker.below.reached.wait(20)
    drop = worker.transfers.submit_drop(ADDRESSES[:3], None)
    assert eventually(lambda: drop.is_done)
    worker.below.gate.set()
    worker.flush()
    assert fetch.result.found == FRAMES
    assert worker.host.has(ADDRESSES) == [False, False, False, True, True]


def test_a_drop_that_redis_did_not_hear_is_made_good_when_it_is_back(
    start: Start, mortal: RedisServer
) -> None:
    worker = start(mortal)
    worker.spill()
    mortal.freeze()
    assert worker.drop() == DeleteReceipt((Tier.HOST,), (Tier.REDIS,))
    assert worker.manifest() == ABSENT
    mortal.resume()
    assert eventually(lambda: worker.below.is_up)
    assert eventually(lambda: mortal.all_keys() == [])
    assert worker.listed() == []


def test_what_was_cached_again_meanwhile_is_not_dropped_late(start: Start, mortal: RedisServer) -> None:
    worker = start(mortal)
    worker.spill()
    mortal.freeze()
    assert worker.drop().unreachable == (Tier.REDIS,)
    worker.spill()
    mortal.resume()
    assert eventually(lambda: worker.below.is_up)
    assert eventually(lambda: worker.spill() == BOTH)
    worker.flush()
    assert worker.listed() == [MANIFEST]
    assert all(worker.below.has(ADDRESSES))
