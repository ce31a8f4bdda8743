"""The host tier: packed frames in this process's memory, least recently used leaves first."""

from __future__ import annotations

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from windowkv_service.cache.events import CacheEvents, Departure, Lookup, NoEvents
from windowkv_service.cache.frame import HEADER_BYTES, Frame, FrameCorrupt, FrameKind, pack, unpack
from windowkv_service.cache.tiers.base import MAX_FRAME_BYTES, Found, Miss
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import MissReason, Tier, TierHealth, TierStatus


@dataclass(eq=False)
class _Kept:
    address: Address
    raw: memoryview
    expires_at: float


@dataclass(order=True)
class _Due:
    """When to look at what is kept; its life may have been extended since."""

    at: float
    kept: _Kept = field(compare=False)


class HostTier:
    """Keeps at most capacity_bytes of frames, headers included. clock gives monotonic seconds; memory gives so many
    bytes to keep them in."""

    tier = Tier.HOST

    def __init__(
        self,
        capacity_bytes: int,
        clock: Callable[[], float] = time.monotonic,
        events: CacheEvents | None = None,
        memory: Callable[[int], memoryview] = lambda size_bytes: memoryview(bytearray(size_bytes)),
    ) -> None:
        self._capacity_bytes = capacity_bytes
        self._memory = memory
        self._clock = clock
        self._events = events or NoEvents()
        self._lock = threading.Lock()
        self._kept: OrderedDict[Address, _Kept] = OrderedDict()  # least recently used first
        self._due: list[_Due] = []  # a heap, one for each _Kept that was ever put and has not come due
        self._used_bytes = 0

    def put(self, frames: Sequence[Frame], ttl_s: float) -> list[bool]:
        return [self._put(frame, ttl_s) for frame in frames]

    def get(self, addresses: Sequence[Address], kind: FrameKind) -> list[Found]:
        found = [self._get(address, kind) for address in addresses]
        misses = sum(isinstance(one, Miss) and one.reason is MissReason.NOT_CACHED for one in found)
        self._events.looked_up(self.tier, Lookup.MISS, misses)
        self._events.looked_up(self.tier, Lookup.HIT, sum(isinstance(one, Frame) for one in found))
        return found

    def has(self, addresses: Sequence[Address]) -> list[bool]:
        with self._lock:
            return [self._live(address) is not None for address in addresses]

    def extend(self, addresses: Sequence[Address], ttl_s: float) -> None:
        with self._lock:
            for address in addresses:
                self._extend(address, ttl_s)

    def drop(self, addresses: Sequence[Address]) -> bool:
        with self._lock:
            gone = sum(self._forget(address) for address in addresses)
        self._events.evicted(self.tier, Departure.DELETE, gone)
        return True

    def close(self) -> None:
        self.clear()

    def clear(self) -> None:
        with self._lock:
            self._kept.clear()
            self._due.clear()
            self._used_bytes = 0

    def status(self) -> TierStatus:
        health = TierHealth.UP if self._capacity_bytes else TierHealth.ABSENT
        with self._lock:
            self._forget_expired()
        return TierStatus(self.tier, health, self._capacity_bytes, self._used_bytes)

    def raw(self, address: Address) -> memoryview | None:
        """The stored bytes themselves, header first, unverified: for tests and tools that damage or inspect
        them."""
        with self._lock:
            kept = self._live(address)
            return None if kept is None else kept.raw

    def expires_at(self, address: Address) -> float:
        """On this tier's clock; what is not there has expired long ago."""
        with self._lock:
            kept = self._live(address)
            return float("-inf") if kept is None else kept.expires_at

    def _put(self, frame: Frame, ttl_s: float) -> bool:
        if frame.size_bytes > min(self._capacity_bytes, MAX_FRAME_BYTES) or ttl_s <= 0:
            return False
        if frame.kind.is_immutable:
            with self._lock:
                if self._extend(frame.address, ttl_s):
                    return True
        raw = self._packed(frame)  # outside the lock: the one copy, and the checksum
        with self._lock:
            self._forget(frame.address)
            self._forget_expired()
            self._make_room(len(raw))
            self._keep(_Kept(frame.address, raw, self._clock() + ttl_s))
        return True

    def _packed(self, frame: Frame) -> memoryview:
        """The bytes to keep, in memory of their own."""
        header, payload = pack(frame)
        if frame.room is not None:
            frame.room[:HEADER_BYTES] = header
            return frame.room
        raw = self._memory(frame.size_bytes)
        raw[:HEADER_BYTES], raw[HEADER_BYTES:] = header, payload
        return raw

    def _get(self, address: Address, kind: FrameKind) -> Found:
        with self._lock:
            kept = self._live(address)
            if kept is None:
                return Miss(MissReason.NOT_CACHED)
            self._kept.move_to_end(address)
        try:
            return unpack(kept.raw, address=address, kind=kind, max_bytes=MAX_FRAME_BYTES)
        except FrameCorrupt as corrupt:
            return self._reject(address, kept, corrupt.reason)

    def _reject(self, address: Address, kept: _Kept, reason: str) -> Miss:
        with self._lock:
            if self._kept.get(address) is kept:  # not one that was put since
                self._forget(address)
        self._events.checksum_failed(self.tier, reason)
        self._events.looked_up(self.tier, Lookup.CORRUPT, 1)
        return Miss(MissReason.CORRUPT)

    def _extend(self, address: Address, ttl_s: float) -> bool:
        kept = self._live(address)
        if kept is None:
            return False
        kept.expires_at = max(kept.expires_at, self._clock() + ttl_s)
        self._kept.move_to_end(address)
        return True

    def _keep(self, kept: _Kept) -> None:
        self._kept[kept.address] = kept
        self._used_bytes += len(kept.raw)
        heapq.heappush(self._due, _Due(kept.expires_at, kept))

    def _live(self, address: Address) -> _Kept | None:
        kept = self._kept.get(address)
        if kept is not None and kept.expires_at <= self._clock():
            self._forget(address)
            self._events.evicted(self.tier, Departure.TTL, 1)
            return None
        return kept

    def _forget(self, address: Address) -> bool:
        kept = self._kept.pop(address, None)
        if kept is None:
            return False
        self._used_bytes -= len(kept.raw)
        return True

    def _forget_expired(self) -> None:
        now, gone = self._clock(), 0
        while self._due and self._due[0].at <= now:
            kept = heapq.heappop(self._due).kept
            if self._kept.get(kept.address) is not kept:
                continue
            if kept.expires_at > now:
                heapq.heappush(self._due, _Due(kept.expires_at, kept))
            else:
                gone += self._forget(kept.address)
        self._events.evicted(self.tier, Departure.TTL, gone)

    def _make_room(self, size_bytes: int) -> None:
        leaving = 0
        while self._used_bytes + size_bytes > self._capacity_bytes:
            self._forget(next(iter(self._kept)))
            leaving += 1
        self._events.evicted(self.tier, Departure.CAPACITY, leaving)
