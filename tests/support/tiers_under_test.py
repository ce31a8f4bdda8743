"""Every tier that the contract suite runs on, and what the suite must be able to do to its stored bytes.

A new tier joins with one entry in TIERS.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from cache_events import RecordedEvents
from redis_server import RedisServer, running

from windowkv_service.cache.tiers.base import Tier
from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.cache.tiers.redis.tier import KEY_PREFIX


class TierUnderTest(Protocol):
    tier: Tier
    events: RecordedEvents

    def pass_time(self, seconds: float) -> None: ...

    def life_s(self, address: bytes) -> float:
        """Seconds that a frame has left."""
        ...

    def raw(self, address: bytes) -> bytes:
        """The stored bytes, header first."""
        ...

    def overwrite(self, address: bytes, raw: bytes) -> None:
        """Put other bytes in their place, behind the tier's back."""
        ...


class _Host:
    def __init__(self) -> None:
        self.now = 1000.0
        self.events = RecordedEvents()
        self.tier = HostTier(1 << 24, lambda: self.now, self.events)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def life_s(self, address: bytes) -> float:
        return self.tier.expires_at(address) - self.now

    def raw(self, address: bytes) -> bytes:
        raw = self.tier.raw(address)
        assert raw is not None
        return bytes(raw)

    def overwrite(self, address: bytes, raw: bytes) -> None:
        stored = self.tier.raw(address)
        assert stored is not None
        stored[:] = raw


class _Redis:
    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.events = RecordedEvents()
        self.tier = RedisTier(server.url, events=self.events)

    def pass_time(self, seconds: float) -> None:
        time.sleep(seconds)

    def life_s(self, address: bytes) -> float:
        return float(self._server.client.pttl(KEY_PREFIX + address.hex().encode())) / 1000

    def raw(self, address: bytes) -> bytes:
        raw = self._server.client.get(KEY_PREFIX + address.hex().encode())
        assert isinstance(raw, bytes)
        return raw

    def overwrite(self, address: bytes, raw: bytes) -> None:
        self._server.client.set(KEY_PREFIX + address.hex().encode(), raw, keepttl=True)


@contextlib.contextmanager
def _host() -> Iterator[Callable[[], AbstractContextManager[TierUnderTest]]]:
    yield lambda: contextlib.nullcontext(_Host())


@contextlib.contextmanager
def _redis() -> Iterator[Callable[[], AbstractContextManager[TierUnderTest]]]:
    """One server for the module, emptied for every test."""
    with running() as server:

        @contextlib.contextmanager
        def fresh() -> Iterator[TierUnderTest]:
            server.flush()
            under_test = _Redis(server)
            try:
                yield under_test
            finally:
                under_test.tier.close()

        yield fresh


TIERS: dict[
    str, Callable[[], AbstractContextManager[Callable[[], AbstractContextManager[TierUnderTest]]]]
] = {
    "host": _host,
    "redis": _redis,
}
