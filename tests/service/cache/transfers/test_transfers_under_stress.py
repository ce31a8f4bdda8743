"""Copies beside the engine: a Redis that is slow, stuck or gone, and the end."""

from __future__ import annotations

import logging

import pytest
from cache_events import address, block
from copying_worker import (
    ADDRESSES,
    BOTH,
    DOWN,
    FRAMES,
    Start,
    Worker,
    stored,
)
from entries import NAMESPACE, NUM_GROUPS, entry
from eventually import eventually
from redis_server import RedisServer

from windowkv_service.cache import manifest
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.jobs import ManifestWrite
from windowkv_service.domain.results import Tier


def test_more_than_may_be_pending_is_not_written_to_redis(start: Start, server: RedisServer) -> None:
    worker = start(server, max_pending_bytes=2 * FRAMES[0].size_bytes)
    worker.host.gate.clear()
    jobs = [worker.transfers.submit_spill([frame], manifest=None, ttl_s=60.0) for frame in FRAMES[:3]]
    worker.host.gate.set()
    worker.flush()
    assert [job.result.tiers for job in jobs] == [BOTH, BOTH, {Tier.HOST}]
    assert stored(server, 0, 1, 2) == [True, True, False]
    assert worker.events.redis_failures == {"backlog": 1}
    assert worker.spill(FRAMES[2:4], None) == BOTH  # what was pending has been written


def test_a_frozen_redis_delays_neither_submissions_nor_reads_from_host_memory(
    start: Start, mortal: RedisServer
) -> None:
    worker = start(mortal)
    worker.spill(FRAMES[:2], None)
    mortal.freeze()
    spill = worker.transfers.submit_spill([block(7, 1 << 22)], manifest=None, ttl_s=60.0)
    fetch = worker.transfers.submit_fetch(ADDRESSES[:2], FrameKind.BLOCK, budget_s=5.0)
    assert eventually(lambda: fetch.is_done)
    assert fetch.result.found == FRAMES[:2]
    worker.flush()
    assert spill.result.tiers == {Tier.HOST}
    mortal.resume()


def test_a_fetch_from_a_frozen_redis_ends_within_its_budget(start: Start, mortal: RedisServer) -> None:
    worker = start(mortal)
    worker.spill()
    worker.host.clear()
    mortal.freeze()
    assert worker.fetch(budget_s=0.1) == ([DOWN] * 5, [None] * 5)
    mortal.resume()
    assert eventually(lambda: worker.fetch() == (FRAMES, [Tier.REDIS] * 5))


def test_a_killed_redis_costs_what_only_it_had(start: Start, mortal: RedisServer) -> None:
    worker = start(mortal)
    worker.spill()
    worker.host.drop(ADDRESSES[:1])
    mortal.kill()
    assert worker.fetch() == ([DOWN, *FRAMES[1:]], [None] + [Tier.HOST] * 4)
    assert worker.spill() == {Tier.HOST}
    mortal.start()
    assert eventually(lambda: worker.below.is_up)
    assert worker.spill() == BOTH


def test_extending_reaches_both_tiers(worker: Worker, server: RedisServer) -> None:
    worker.spill(FRAMES, None)
    worker.transfers.submit_extend(ADDRESSES, 600.0)
    worker.flush()
    assert all(server.client.pttl(key) > 500_000 for key in server.all_keys())
    assert len(server.all_keys()) == 5


def test_a_probe_counts_leading_windows_over_all_tiers(worker: Worker) -> None:
    worker.spill()
    worker.host.drop(ADDRESSES[:1])
    worker.below.drop(ADDRESSES[1:2])
    windows = [[ADDRESSES[0], ADDRESSES[1]], [], [ADDRESSES[2]], [ADDRESSES[3], address(7)], [ADDRESSES[4]]]
    assert worker.probe(windows) == 3
    assert worker.probe(windows[:3] * 50) == 150
    assert worker.probe([]) == 0


def test_finished_jobs_are_polled_once_and_wake_the_worker(worker: Worker) -> None:
    jobs = [worker.transfers.submit_spill([frame], manifest=None, ttl_s=60.0) for frame in FRAMES]
    worker.flush()
    assert worker.transfers.poll() == jobs
    assert worker.transfers.poll() == []
    assert eventually(lambda: worker.num_wakes == 5)


def test_flush_says_when_something_is_still_under_way(worker: Worker) -> None:
    worker.host.gate.clear()
    worker.transfers.submit_spill(FRAMES, manifest=None, ttl_s=60.0)
    assert worker.transfers.flush(0.01) is False
    worker.host.gate.set()
    assert worker.transfers.flush(20) is True


def test_a_mistake_of_our_own_ends_the_job_and_not_the_lane(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Frame(FrameKind.BLOCK, address(1), "no such dtype", (1,), memoryview(b"x"))
    with caplog.at_level(logging.ERROR):
        assert worker.spill([broken], None) == frozenset()
    assert "a transfer broke down" in caplog.text
    assert worker.spill() == BOTH


def test_closing_with_work_under_way_ends(start: Start, mortal: RedisServer) -> None:
    worker = start(mortal)
    mortal.freeze()
    for number in range(50):
        worker.transfers.submit_spill([block(number, 100_000)], manifest=None, ttl_s=60.0)
    worker.close()
    mortal.resume()


def test_a_new_worker_restores_what_an_old_one_spilled(start: Start, server: RedisServer) -> None:
    old, made = start(server), entry(range(22), kept=[0, 5], display_name="the document")
    frames = [Frame.of(FrameKind.BLOCK, one, one * 3) for one in made.addresses]
    assert old.spill(frames, ManifestWrite(b"list", manifest.write(made), made.addresses)) == BOTH
    old.close()
    new = start(server)
    (found,) = new.listed()
    back = manifest.read(found, NAMESPACE, [1] * NUM_GROUPS)
    assert (back.name, back.display_name, back.token_ids) == (made.name, "the document", made.token_ids)
    assert new.fetch(back.addresses) == (frames, [Tier.REDIS] * len(frames))
