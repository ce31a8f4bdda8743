"""Every tier that the contract suite runs on, and what the suite must be able to do to its stored bytes.

A new tier joins with one entry in TIERS, or in TIERS_BELOW when it stores bytes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol, TypeVar

import torch
from cache_events import RecordedEvents, block
from redis_server import RedisServer, running

from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.cache.frame import Frame
from windowkv_service.cache.tiers.base import Tier
from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.cache.tiers.redis.tier import KEY_PREFIX
from windowkv_service.engine.device import DeviceTier
from windowkv_service.kv.buffers import Arenas
from windowkv_service.kv.layout import KVLayout


class TierUnderTest(Protocol):
    tier: Tier

    def frame(self, number: int) -> Frame:
        """A block that the tier can hold, with an address and bytes of its own."""
        ...

    def pass_time(self, seconds: float) -> None: ...

    def life_s(self, address: bytes) -> float:
        """Seconds that a frame has left."""
        ...


class TierBelow(TierUnderTest, Protocol):
    """One that stores bytes, of whatever kind and size, and must mistrust what it reads."""

    events: RecordedEvents

    def raw(self, address: bytes) -> bytes:
        """The stored bytes, header first."""
        ...

    def overwrite(self, address: bytes, raw: bytes) -> None:
        """Put other bytes in their place, behind the tier's back."""
        ...


class _Device:
    """Room for 2,000 blocks of one layer, two tokens, one head and two numbers."""

    SHAPE = (1, 2, 2, 1, 2)

    def __init__(self) -> None:
        self.now = 1000.0
        layout = KVLayout.plan(
            [0], [None], group_size=1, window_size=2, num_kv_heads=1, head_dim=2, itemsize=4
        )
        arenas = Arenas(layout, {1: 2000}, dtype=torch.float32, device=torch.device("cpu"))
        self.tier = DeviceTier(arenas, {1: BlockPool(2000)}, lambda: self.now)

    def frame(self, number: int) -> Frame:
        return replace(block(number, 32), dtype="float32", shape=self.SHAPE)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def life_s(self, address: bytes) -> float:
        return self.tier._expiry[address] - self.now


class _Host:
    def __init__(self) -> None:
        self.now = 1000.0
        self.events = RecordedEvents()
        self.tier = HostTier(1 << 24, lambda: self.now, self.events)

    def frame(self, number: int) -> Frame:
        return block(number)

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def life_s(self, address: bytes) -> float:
        return self.tier.expires_at(address) - self.now

    def raw(self, address: bytes) -> bytes:
        raw = self.tier.raw(address)
        assert raw is not None
        return bytes(raw)

    def overwrite(self, address: bytes, raw: bytes) -> None:
        self.tier._kept[address].raw = memoryview(bytearray(raw))


class _Redis:
    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.events = RecordedEvents()
        self.tier = RedisTier(server.url, events=self.events)

    def frame(self, number: int) -> Frame:
        return block(number)

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


T_co = TypeVar("T_co", covariant=True)
Maker = Callable[[], AbstractContextManager[T_co]]  # a fresh tier for one test


@contextlib.contextmanager
def _device() -> Iterator[Maker[TierUnderTest]]:
    yield lambda: contextlib.nullcontext(_Device())


@contextlib.contextmanager
def _host() -> Iterator[Maker[TierBelow]]:
    yield lambda: contextlib.nullcontext(_Host())


@contextlib.contextmanager
def _redis() -> Iterator[Maker[TierBelow]]:
    """One server for the module, emptied for every test."""
    with running() as server:

        @contextlib.contextmanager
        def fresh() -> Iterator[TierBelow]:
            server.flush()
            under_test = _Redis(server)
            try:
                yield under_test
            finally:
                under_test.tier.close()

        yield fresh


TIERS_BELOW: dict[str, Callable[[], AbstractContextManager[Maker[TierBelow]]]] = {
    "host": _host,
    "redis": _redis,
}
TIERS: dict[str, Callable[[], AbstractContextManager[Maker[TierUnderTest]]]] = {
    "device": _device,
    **TIERS_BELOW,
}
