"""Copies beside the engine: no manifest is written over what is not there."""

from __future__ import annotations

from cache_events import address
from copying_worker import (
    ABSENT,
    ADDRESSES,
    BOTH,
    FRAMES,
    MANIFEST,
    Start,
    Worker,
)
from redis_server import RedisServer

from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.jobs import ManifestWrite
from windowkv_service.cache.tiers.base import MAX_FRAME_BYTES
from windowkv_service.domain.results import DeleteReceipt, Tier


def test_a_manifest_is_not_written_over_missing_frames(start: Start, mortal: RedisServer) -> None:
    worker = start(mortal)
    mortal.client.config_set("maxmemory", 1)
    assert worker.spill() == {Tier.HOST}
    mortal.client.config_set("maxmemory", 0)
    assert worker.manifest() == ABSENT
    assert mortal.all_keys() == []


def test_a_manifest_is_not_written_when_a_frame_was_refused(start: Start, server: RedisServer) -> None:
    worker = start(server, max_pending_bytes=2 * MAX_FRAME_BYTES)
    refused = Frame.of(FrameKind.BLOCK, address(7), bytes(MAX_FRAME_BYTES))
    assert worker.spill([*FRAMES, refused]) == frozenset()
    assert worker.manifest() == ABSENT
    assert server.all_keys() == []


def test_a_manifest_is_not_written_over_a_prefix_that_is_gone(worker: Worker, server: RedisServer) -> None:
    assert worker.spill(FRAMES[:2], None) == BOTH
    longer = ManifestWrite(b"list", MANIFEST, ADDRESSES)
    assert worker.spill(FRAMES[2:], longer) == BOTH
    assert worker.drop() == DeleteReceipt((Tier.HOST, Tier.REDIS), ())
    assert worker.spill(FRAMES[2:], longer) == {Tier.HOST}
    assert worker.manifest() == ABSENT


def test_a_manifest_lengthens_the_lives_it_relies_on(worker: Worker, server: RedisServer) -> None:
    worker.transfers.submit_spill(FRAMES[:2], manifest=None, ttl_s=5.0)
    worker.transfers.submit_spill(
        FRAMES[2:], manifest=ManifestWrite(b"list", MANIFEST, ADDRESSES), ttl_s=600.0
    )
    worker.flush()
    assert all(server.client.pttl(key) > 500_000 for key in server.all_keys())


def test_a_manifest_alone_can_be_written_anew(worker: Worker) -> None:
    worker.spill()
    newer = Frame.of(FrameKind.MANIFEST, MANIFEST.address, b"newer")
    assert worker.spill([], ManifestWrite(b"list", newer)) == BOTH
    assert worker.listed() == [newer]
