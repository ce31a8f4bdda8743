"""Transfers: copies between the worker and the tiers below, in threads of their own, so that the engine never
waits.

Writes go through two lanes in the order they were submitted, host memory first, then Redis: a drop never
overtakes the spill before it nor falls behind the one after it. Reads have threads of their own: a fetch
never queues behind writes, nor one from host memory behind those that wait for Redis. Submit and poll from
one thread, the engine's worker.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from windowkv_service.cache.debts import Debts
from windowkv_service.cache.events import CacheEvents, NoEvents, RedisOp
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.inflight import InFlight
from windowkv_service.cache.jobs import Fetched, Job, JobKind, ManifestRef, ManifestWrite, Probed, R, Spilled
from windowkv_service.cache.reads import Reads
from windowkv_service.cache.tiers.base import Found, Miss
from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.cache.writes import Drop, Extend, Spill, Write
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import DeleteReceipt, MissReason

_log = logging.getLogger(__name__)
_FETCHED_TTL_S = 600.0


class Transfers:
    """wake is called, from any thread, whenever a job has finished. redis None: nothing is below host
    memory."""

    def __init__(
        self,
        host: HostTier,
        redis: RedisTier | None,
        *,
        max_pending_bytes: int,
        num_threads: int = 2,
        wake: Callable[[], None] = lambda: None,
        events: CacheEvents | None = None,
    ) -> None:
        self._host = host
        self._redis = redis
        self._max_pending_bytes = max_pending_bytes
        self._wake = wake
        self._events = events or NoEvents()
        self._in_flight = InFlight()
        self._debts = Debts()
        self._reads = Reads(host, redis, self._in_flight, self._events)
        self._host_lane = ThreadPoolExecutor(1, "windowkv-host")
        self._redis_lane = ThreadPoolExecutor(1, "windowkv-redis")
        self._readers = ThreadPoolExecutor(num_threads, "windowkv-read")
        self._redis_readers = ThreadPoolExecutor(num_threads, "windowkv-read-redis")
        self._changed = threading.Condition()  # guards what follows
        self._finished: deque[Job[Any]] = deque()
        self._num_open = 0
        self._pending_bytes = 0
        if redis is not None:
            redis.when_up(self._pay_debts)

    def submit_spill(
        self, frames: Sequence[Frame], *, manifest: ManifestWrite | None, ttl_s: float
    ) -> Job[Spilled]:
        """Write frames to host memory, then to Redis, then the manifest. The frames' memory must stay as it
        is until the job is done. With more than max_pending_bytes on their way Redis is given up at once."""
        spill = Spill(frames, manifest, ttl_s, self._host, self._in_flight, self._debts, self._events)
        size_bytes = spill.size_bytes
        uses_redis = self._claim(size_bytes)
        if self._redis is not None and not uses_redis:
            self._events.redis_failed(RedisOp.WRITE, "backlog")
        return self._write(JobKind.SPILL, spill, uses_redis, size_bytes)

    def submit_drop(self, addresses: Sequence[Address], manifest: ManifestRef | None) -> Job[DeleteReceipt]:
        """Forget in every tier; the receipt says which confirmed."""
        return self._write(JobKind.DROP, Drop(addresses, manifest, self._host, self._in_flight, self._debts))

    def submit_extend(self, addresses: Sequence[Address], ttl_s: float) -> Job[None]:
        return self._write(JobKind.EXTEND, Extend(addresses, ttl_s, self._host))

    def submit_fetch(
        self,
        addresses: Sequence[Address],
        kind: FrameKind,
        *,
        budget_s: float,
        ttl_s: float = _FETCHED_TTL_S,
    ) -> Job[Fetched]:
        """Read from host memory, what is missing there from Redis. What came from Redis stays in host memory
        for ttl_s. What did not come within budget_s, time in the queue included, is Miss(TIER_DOWN)."""
        nothing: list[Found] = [Miss(MissReason.TIER_DOWN)] * len(addresses)
        deadline = time.monotonic() + budget_s
        fetch = self._reads.fetch(addresses, kind, deadline, ttl_s)
        unread = Fetched(nothing, [None] * len(addresses))
        return self._read(JobKind.FETCH, unread, fetch.from_redis, fetch.above_redis)

    def submit_probe(self, windows: Sequence[Sequence[Address]]) -> Job[Probed]:
        """How many leading windows have all their addresses below. A window without addresses counts as
        present."""
        return self._read(
            JobKind.PROBE,
            Probed(),
            lambda: self._reads.probe(windows),
            lambda: self._reads.probe_above_redis(windows),
        )

    def submit_manifest(self, address: Address) -> Job[Found]:
        """The manifest under an address, from Redis."""
        nothing: Found = Miss(MissReason.NOT_CACHED if self._redis is None else MissReason.TIER_DOWN)
        return self._read(
            JobKind.MANIFEST, nothing, lambda: self._kept(address, FrameKind.MANIFEST, nothing, None)
        )

    def submit_alias(self, address: Address, *, budget_s: float) -> Job[Found]:
        """The record of an alias, from Redis."""
        nothing: Found = Miss(MissReason.NOT_CACHED if self._redis is None else MissReason.TIER_DOWN)
        return self._read(
            JobKind.ALIAS, nothing, lambda: self._kept(address, FrameKind.ALIAS, nothing, budget_s)
        )

    def submit_manifests(
        self, list_key: bytes, known: Container[Address] = frozenset()
    ) -> Job[list[Frame] | None]:
        """All manifests that were written under list_key and still live, but those at known addresses; None where
        Redis could not say."""
        return self._read(JobKind.MANIFESTS, None, lambda: self._manifests(list_key, known))

    def poll(self) -> list[Job[Any]]:
        """Jobs that finished since the last poll, in the order they finished."""
        with self._changed:
            finished = list(self._finished)
            self._finished.clear()
        return finished

    def flush(self, timeout_s: float) -> bool:
        """Wait until nothing is under way; False when timeout_s passed before. What finished still waits for
        poll."""
        with self._changed:
            return self._changed.wait_for(lambda: self._num_open == 0, timeout_s)

    def close(self) -> None:
        """Finish the steps that are running, start no others. The tiers are the caller's to close."""
        for lane in (self._readers, self._redis_readers, self._host_lane, self._redis_lane):
            lane.shutdown(wait=True, cancel_futures=True)

    def _kept(self, address: Address, kind: FrameKind, nothing: Found, budget_s: float | None) -> Found:
        """What Redis has of one record, unless it was dropped and Redis does not know yet."""
        if self._redis is None:
            return nothing
        if self._debts.is_owed(address):
            return Miss(MissReason.NOT_CACHED)
        return self._redis.get([address], kind, budget_s=budget_s)[0]

    def _manifests(self, list_key: bytes, known: Container[Address]) -> list[Frame] | None:
        listed = [] if self._redis is None else self._redis.list_manifests(list_key, known)
        if listed is None:
            return None
        return [frame for frame in listed if not self._debts.is_owed(frame.address)]

    def _pay_debts(self) -> None:
        redis = self._redis
        if redis is not None and self._debts.is_any_owed():
            with contextlib.suppress(RuntimeError):  # closing down
                self._redis_lane.submit(_guard, lambda: self._debts.pay(redis))

    def _claim(self, size_bytes: int) -> bool:
        """Whether so much more may be on its way to Redis."""
        with self._changed:
            if self._redis is None or self._pending_bytes + size_bytes > self._max_pending_bytes:
                return False
            self._pending_bytes += size_bytes
            return True

    def _write(
        self, kind: JobKind, write: Write[R], uses_redis: bool = True, claimed_bytes: int = 0
    ) -> Job[R]:
        job = self._open(kind, write.result)
        redis = self._redis if uses_redis else None
        started = time.monotonic()

        def on_host() -> None:
            _guard(write.to_host)
            if redis is None:
                end()
            else:
                self._redis_lane.submit(on_redis, redis)

        def on_redis(redis: RedisTier) -> None:
            _guard(lambda: write.to_redis(redis))
            end()

        def end() -> None:
            write.end()
            self._close(job, write.result, started, claimed_bytes if uses_redis else 0)

        self._host_lane.submit(on_host)
        return job

    def _read(
        self,
        kind: JobKind,
        nothing: R,
        read: Callable[[], R],
        read_above_redis: Callable[[], R | None] | None = None,
    ) -> Job[R]:
        """read may wait for Redis; read_above_redis comes first and may make it unnecessary."""
        job = self._open(kind, nothing)
        started = time.monotonic()

        def run() -> None:
            answer: list[R] = []
            _guard(lambda: answer.append(read()))
            self._close(job, answer[0] if answer else nothing, started)

        def run_above(first: Callable[[], R | None]) -> None:
            answer: list[R | None] = []
            _guard(lambda: answer.append(first()))
            if answer and answer[0] is not None:
                self._close(job, answer[0], started)
            else:
                with contextlib.suppress(RuntimeError):  # closing down
                    self._redis_readers.submit(run)

        if read_above_redis is None:
            self._redis_readers.submit(run)
        else:
            self._readers.submit(run_above, read_above_redis)
        return job

    def _open(self, kind: JobKind, nothing: R) -> Job[R]:
        with self._changed:
            self._num_open += 1
        return Job(kind, nothing)

    def _close(self, job: Job[R], result: R, started: float, claimed_bytes: int = 0) -> None:
        with self._changed:
            job.result, job.seconds, job.is_done = result, time.monotonic() - started, True
            self._pending_bytes -= claimed_bytes
            self._num_open -= 1
            self._finished.append(job)
            self._changed.notify_all()
        self._wake()


def _guard(step: Callable[[], None]) -> None:
    """Tiers do not raise; if our own code does, the job ends as one whose work was not done."""
    try:
        step()
    except Exception:
        _log.exception("a transfer broke down")
