"""The writes that go down the tiers: each has a step on host memory and a step on Redis, in that order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Generic, Protocol

from windowkv_service.cache.debts import Debts
from windowkv_service.cache.events import CacheEvents
from windowkv_service.cache.frame import Frame
from windowkv_service.cache.inflight import InFlight
from windowkv_service.cache.jobs import ManifestRef, ManifestWrite, R_co, Spilled
from windowkv_service.cache.tiers.base import Tier as AnyTier
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.domain.keys import Address
from windowkv_service.domain.results import DeleteReceipt, Tier


class Write(Protocol, Generic[R_co]):
    """to_redis is skipped where there is no Redis or the write gave it up; end is called last, whatever
    happened."""

    def to_host(self) -> None: ...

    def to_redis(self, redis: RedisTier) -> None: ...

    def end(self) -> None: ...

    @property
    def result(self) -> R_co: ...


class Spill:
    """Frames, then the manifest: two-phase, so that nobody reads half an entry."""

    def __init__(
        self,
        frames: Sequence[Frame],
        manifest: ManifestWrite | None,
        ttl_s: float,
        host: AnyTier,
        in_flight: InFlight,
        debts: Debts,
        events: CacheEvents,
    ) -> None:
        self._frames = frames
        self._manifest = manifest
        self._ttl_s = ttl_s
        self._host = host
        self._in_flight = in_flight
        self._debts = debts
        self._events = events
        self._tiers: set[Tier] = set()
        self._started = time.monotonic()
        in_flight.begin_spill(frames)

    @property
    def size_bytes(self) -> int:
        return sum(frame.size_bytes for frame in self._frames)

    @property
    def result(self) -> Spilled:
        return Spilled(frozenset(self._tiers), time.monotonic() - self._started)

    def to_host(self) -> None:
        self._put(self._host)
        if not all(self._host.has([frame.address for frame in self._frames])):
            self._tiers.discard(self._host.tier)  # larger than the tier: its last frames pushed out its first

    def to_redis(self, redis: RedisTier) -> None:
        self._debts.forgive(frame.address for frame in self._frames)
        if self._put(redis) and self._manifest is not None and not self._publish(redis, self._manifest):
            self._tiers.discard(Tier.REDIS)

    def end(self) -> None:
        self._in_flight.end_spill(self._frames)

    def _put(self, tier: AnyTier) -> bool:
        started = time.monotonic()
        kept = tier.put(self._frames, self._ttl_s)
        if all(kept):
            self._tiers.add(tier.tier)
        size_bytes = sum(
            frame.size_bytes for frame, is_kept in zip(self._frames, kept, strict=True) if is_kept
        )
        self._events.moved(Tier.DEVICE, tier.tier, sum(kept), size_bytes, time.monotonic() - started)
        return all(kept)

    def _publish(self, redis: RedisTier, manifest: ManifestWrite) -> bool:
        spilled = {frame.address for frame in self._frames}
        others = [address for address in manifest.requires if address not in spilled]
        self._debts.forgive(others)
        redis.extend(others, self._ttl_s)
        if not all(redis.has(others)):
            return False
        if not redis.put_manifest(manifest.list_key, manifest.frame, self._ttl_s):
            return False
        self._debts.forgive([manifest.frame.address])
        return True


class Drop:
    """The manifest first, then the bytes: the reverse of a spill."""

    def __init__(
        self,
        addresses: Sequence[Address],
        manifest: ManifestRef | None,
        host: AnyTier,
        in_flight: InFlight,
        debts: Debts,
    ) -> None:
        self._addresses = addresses
        self._manifest = manifest
        self._host = host
        self._in_flight = in_flight
        self._debts = debts
        self._confirmed: dict[Tier, bool] = {}
        in_flight.begin_drop(addresses)

    @property
    def result(self) -> DeleteReceipt:
        confirmed = tuple(tier for tier, is_gone in self._confirmed.items() if is_gone)
        return DeleteReceipt(confirmed, tuple(tier for tier in self._confirmed if tier not in confirmed))

    def to_host(self) -> None:
        self._confirmed[Tier.HOST] = self._host.drop(self._addresses)

    def to_redis(self, redis: RedisTier) -> None:
        self._confirmed[Tier.REDIS] = False
        is_unlisted = self._manifest is None or redis.drop_manifest(
            self._manifest.list_key, self._manifest.address
        )
        self._confirmed[Tier.REDIS] = redis.drop(self._addresses) and is_unlisted
        if not self._confirmed[Tier.REDIS]:
            self._debts.owe(self._addresses, self._manifest)

    def end(self) -> None:
        self._in_flight.end_drop(self._addresses)


class Extend:
    def __init__(self, addresses: Sequence[Address], ttl_s: float, host: AnyTier) -> None:
        self._addresses = addresses
        self._ttl_s = ttl_s
        self._host = host

    @property
    def result(self) -> None:
        return None

    def to_host(self) -> None:
        self._host.extend(self._addresses, self._ttl_s)

    def to_redis(self, redis: RedisTier) -> None:
        redis.extend(self._addresses, self._ttl_s)

    def end(self) -> None:
        return
