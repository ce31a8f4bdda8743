"""Reads from the tiers below: host memory, then spills still under way, then Redis.

Each is done in two steps, so that what host memory has never waits behind what only a slow Redis has.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from windowkv_service.cache.events import CacheEvents
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.inflight import InFlight, Reading
from windowkv_service.cache.jobs import Fetched, Probed
from windowkv_service.cache.tiers.base import Found, Miss
from windowkv_service.cache.tiers.base import Tier as AnyTier
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import MissReason, Tier

_PROBED_AT_ONCE = 64  # windows; a probe ends at the first that is not there
_TELLING = (MissReason.CORRUPT, MissReason.TIER_DOWN, MissReason.NOT_CACHED)  # which reason says most


class Reads:
    """Called from several threads."""

    def __init__(
        self, host: AnyTier, redis: RedisTier | None, in_flight: InFlight, events: CacheEvents
    ) -> None:
        self._host = host
        self._redis = redis
        self._in_flight = in_flight
        self._events = events

    def fetch(self, addresses: Sequence[Address], kind: FrameKind, deadline: float, ttl_s: float) -> Fetch:
        """deadline: time.monotonic() seconds. Frames from Redis are kept in host memory for ttl_s."""
        return Fetch(self, addresses, kind, deadline, ttl_s)

    def probe_above_redis(self, windows: Sequence[Sequence[Address]]) -> Probed | None:
        """None where Redis has to be asked as well."""
        probed = self._probe(windows, self._present_above_redis)
        return probed if self._redis is None or probed.leading_windows == len(windows) else None

    def probe(self, windows: Sequence[Sequence[Address]]) -> Probed:
        return self._probe(windows, self._present)

    def begin(self) -> Reading:
        return self._in_flight.begin_read()

    def end(self, reading: Reading) -> None:
        self._in_flight.end_read(reading)

    @property
    def has_redis(self) -> bool:
        return self._redis is not None

    @staticmethod
    def _probe(
        windows: Sequence[Sequence[Address]], present_of: Callable[[Sequence[Address]], set[Address]]
    ) -> Probed:
        for start in range(0, len(windows), _PROBED_AT_ONCE):
            batch = windows[start : start + _PROBED_AT_ONCE]
            present = present_of([address for window in batch for address in window])
            for index, window in enumerate(batch):
                if not present.issuperset(window):
                    return Probed(start + index)
        return Probed(len(windows))

    def from_host(
        self, addresses: Sequence[Address], kind: FrameKind
    ) -> tuple[list[Found], list[Tier | None]]:
        started = time.monotonic()
        found = self._host.get(addresses, kind)
        for index, one in enumerate(found):
            if isinstance(one, Miss):
                # A spill leaves the in-flight table only after host memory has it: asked in this order, one
                # of three answers is the frame.
                found[index] = self._in_flight.copy_of(addresses[index], kind) or one
        again = [i for i, one in enumerate(found) if one == Miss(MissReason.NOT_CACHED)]
        if again:
            for index, one in zip(again, self._host.get([addresses[i] for i in again], kind), strict=True):
                found[index] = one
        sources = [Tier.HOST if isinstance(one, Frame) else None for one in found]
        self._tell(Tier.HOST, found, started)
        return found, sources

    def from_redis(
        self,
        addresses: Sequence[Address],
        kind: FrameKind,
        deadline: float,
        ttl_s: float,
        reading: Reading,
        found: list[Found],
        sources: list[Tier | None],
    ) -> None:
        """Fill in what is missing."""
        missing = [index for index, one in enumerate(found) if isinstance(one, Miss)]
        if self._redis is None or not missing:
            return
        started = time.monotonic()
        budget_s = max(0.0, deadline - started)
        arrived = self._redis.get([addresses[i] for i in missing], kind, budget_s=budget_s)
        for index, one in zip(missing, arrived, strict=True):
            if isinstance(one, Frame):
                found[index], sources[index] = one, Tier.REDIS
            else:
                found[index] = min(found[index], one, key=_telling)
        self._tell(Tier.REDIS, arrived, started)
        self._in_flight.keep(self._host, [one for one in arrived if isinstance(one, Frame)], reading, ttl_s)

    def _present_above_redis(self, addresses: Sequence[Address]) -> set[Address]:
        present = {one for one, here in zip(addresses, self._host.has(addresses), strict=True) if here}
        return present | {one for one in addresses if one not in present and self._in_flight.has(one)}

    def _present(self, addresses: Sequence[Address]) -> set[Address]:
        present = self._present_above_redis(addresses)
        rest = [one for one in addresses if one not in present]
        if self._redis is not None and rest:
            present |= {one for one, here in zip(rest, self._redis.has(rest), strict=True) if here}
        return present

    def _tell(self, source: Tier, found: Sequence[Found], started: float) -> None:
        frames = [one for one in found if isinstance(one, Frame)]
        if frames:
            size_bytes = sum(one.size_bytes for one in frames)
            self._events.moved(source, Tier.DEVICE, len(frames), size_bytes, time.monotonic() - started)


class Fetch:
    """One fetch. above_redis answers where all is there; else from_redis fills in what is missing."""

    def __init__(
        self, reads: Reads, addresses: Sequence[Address], kind: FrameKind, deadline: float, ttl_s: float
    ) -> None:
        self._reads = reads
        self._addresses = addresses
        self._kind = kind
        self._deadline = deadline
        self._ttl_s = ttl_s
        self._started = time.monotonic()
        self._reading = reads.begin()
        self._found: list[Found] = []
        self._sources: list[Tier | None] = []

    def above_redis(self) -> Fetched | None:
        self._found, self._sources = self._reads.from_host(self._addresses, self._kind)
        is_complete = all(isinstance(one, Frame) for one in self._found)
        return self._ended() if is_complete or not self._reads.has_redis else None

    def from_redis(self) -> Fetched:
        try:
            self._reads.from_redis(
                self._addresses,
                self._kind,
                self._deadline,
                self._ttl_s,
                self._reading,
                self._found,
                self._sources,
            )
        finally:
            fetched = self._ended()
        return fetched

    def _ended(self) -> Fetched:
        self._reads.end(self._reading)
        size_bytes = sum(one.size_bytes for one in self._found if isinstance(one, Frame))
        return Fetched(self._found, self._sources, size_bytes, time.monotonic() - self._started)


def _telling(found: Found) -> int:
    return _TELLING.index(found.reason) if isinstance(found, Miss) else len(_TELLING)
