"""Drops that Redis could not be told of: owed until it is back, so that what was deleted does not come to
life again."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence

from windowkv_service.cache.jobs import ManifestRef
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.domain.keys import Address

_MAX_OWED = 1_000_000  # addresses; beyond that the oldest are left to their time to live


class Debts:
    """Thread-safe. Paid from the lane that also spills, so that what is spilled anew is not dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._addresses: dict[Address, None] = {}  # oldest first
        self._manifests: dict[Address, ManifestRef] = {}

    def owe(self, addresses: Iterable[Address], manifest: ManifestRef | None) -> None:
        with self._lock:
            self._addresses.update(dict.fromkeys(addresses))
            if manifest is not None:
                self._manifests[manifest.address] = manifest
            while len(self._addresses) > _MAX_OWED:
                del self._addresses[next(iter(self._addresses))]

    def forgive(self, addresses: Iterable[Address]) -> None:
        """They are wanted again."""
        with self._lock:
            for address in addresses:
                self._addresses.pop(address, None)
                self._manifests.pop(address, None)

    def is_owed(self, address: Address) -> bool:
        """Whether what may still be read there was dropped."""
        with self._lock:
            return address in self._manifests or address in self._addresses

    def is_any_owed(self) -> bool:
        with self._lock:
            return bool(self._addresses or self._manifests)

    def pay(self, redis: RedisTier) -> None:
        with self._lock:
            manifests: Sequence[ManifestRef] = list(self._manifests.values())
            addresses = list(self._addresses)
        for manifest in manifests:
            if redis.drop_manifest(manifest.list_key, manifest.address):
                self.forgive([manifest.address])
        if addresses and redis.drop(addresses):
            self.forgive(addresses)
