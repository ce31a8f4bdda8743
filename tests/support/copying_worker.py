"""A worker as the transfers see it: gated tiers, a listener, and short ways to ask for copies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from cache_events import RecordedEvents, address, block
from redis_server import RedisServer

from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.jobs import ManifestRef, ManifestWrite
from windowkv_service.cache.tiers.base import Found, Miss
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


def stored(server: RedisServer, *numbers: int) -> list[bool]:
    return [bool(server.client.exists(KEY_PREFIX + address(number).hex().encode())) for number in numbers]
