"""Copies beside the engine: what is written, found, dropped and given up, with a real Redis."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest
from cache_events import RecordedEvents, address, block
from entries import NAMESPACE, NUM_GROUPS, entry
from eventually import eventually
from redis_server import RedisServer, running

from windowkv_service.cache import manifest
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.jobs import ManifestRef, ManifestWrite
from windowkv_service.cache.tiers.base import MAX_FRAME_BYTES, Found, Miss
from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.cache.tiers.redis.tier import KEY_PREFIX
from windowkv_service.cache.transfers import Transfers
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import DeleteReceipt, MissReason, Tier

ABSENT = Miss(MissReason.NOT_CACHED)
DOWN = Miss(MissReason.TIER_DOWN)
CORRUPT = Miss(MissReason.CORRUPT)
BOTH = frozenset({Tier.HOST, Tier.REDIS})
FRAMES = [block(number) for number in range(5)]
ADDRESSES = [frame.address for frame in FRAMES]
MANIFEST = Frame.of(FrameKind.MANIFEST, address(99), b"manifest")
WRITE = ManifestWrite(b"list", MANIFEST)
REF = ManifestRef(b"list", MANIFEST.address)


class GatedHost(HostTier):
    """Writes wait at a gate that the test opens."""

    def __init__(self) -> None:
        super().__init__(1 << 24)
        self.gate = threading.Event()
        self.gate.set()

    def put(self, frames: Sequence[Frame], ttl_s: float) -> list[bool]:
        assert self.gate.wait(20)
        return super().put(frames, ttl_s)


class GatedRedis(RedisTier):
    """Reads have happened, and wait at a gate before they are answered."""

    gate: threading.Event

    def get(
        self, addresses: Sequence[Address], kind: FrameKind, *, budget_s: float | None = None
    ) -> list[Found]:
        found = super().get(addresses, kind, budget_s=budget_s)
        self.reached.set()
        assert self.gate.wait(20)
        return found

    def __init__(self, url: str) -> None:
        self.gate, self.reached = threading.Event(), threading.Event()
        self.gate.set()
        super().__init__(url, load_budget_s=2.0, write_budget_s=1.0, connect_timeout_s=0.5)


class Worker:
    """What an engine would hold."""

    def __init__(self, server: RedisServer | None, max_pending_bytes: int = 1 << 24) -> None:
        self.events = RecordedEvents()
        self.host = GatedHost()
        self.redis = None if server is None else GatedRedis(server.url)
        self.num_wakes = 0
        self.transfers = Transfers(
            self.host,
            self.redis,
            max_pending_bytes=max_pending_bytes,
            wake=self._woken,
            events=self.events,
        )

    @property
    def below(self) -> GatedRedis:
        assert self.redis is not None
        return self.redis

    def _woken(self) -> None:
        self.num_wakes += 1

    def spill(self, frames: Sequence[Frame] = FRAMES, write: ManifestWrite | None = WRITE) -> frozenset[Tier]:
        job = self.transfers.submit_spill(frames, manifest=write, ttl_s=60.0)
        self.flush()
        return job.result.tiers

    def fetch(
        self, addresses: Sequence[Address] = ADDRESSES, budget_s: float = 5.0
    ) -> tuple[list[Found], list[Tier | None]]:
        job = self.transfers.submit_fetch(addresses, FrameKind.BLOCK, budget_s=budget_s)
        self.flush()
        return list(job.result.found), list(job.result.sources)

    def drop(self, addresses: Sequence[Address] = ADDRESSES) -> DeleteReceipt:
        job = self.transfers.submit_drop(addresses, REF)
        self.flush()
        return job.result

    def probe(self, windows: Sequence[Sequence[Address]]) -> int:
        job = self.transfers.submit_probe(windows)
        self.flush()
        return job.result.leading_windows

    def manifest(self) -> Found:
        job = self.transfers.submit_manifest(MANIFEST.address)
        self.flush()
        return job.result

    def listed(self) -> list[Frame]:
        job = self.transfers.submit_manifests(b"list")
        self.flush()
        return job.result

    def flush(self) -> None:
        assert self.transfers.flush(20)

    def close(self) -> None:
        self.host.gate.set()
        if self.redis is not None:
            self.redis.gate.set()
        self.transfers.close()
        if self.redis is not None:
            self.redis.close()


Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with running() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.flush()
    return shared


@pytest.fixture
def mortal() -> Iterator[RedisServer]:
    with running() as server:
        yield server


@pytest.fixture
def start() -> Iterator[Start]:
    workers: list[Worker] = []

    def start(server: RedisServer | None, **options: int) -> Worker:
        workers.append(Worker(server, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def worker(start: Start, server: RedisServer) -> Worker:
    return start(server)


def stored(server: RedisServer, *numbers: int) -> list[bool]:
    return [bool(server.client.exists(KEY_PREFIX + address(number).hex().encode())) for number in numbers]


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
    back = manifest.read(found, NAMESPACE, NUM_GROUPS)
    assert (back.name, back.display_name, back.token_ids) == (made.name, "the document", made.token_ids)
    assert new.fetch(back.addresses) == (frames, [Tier.REDIS] * len(frames))
