"""Who is on the device: which entry holds which blocks, who must leave for room, and who leaves once it is
unused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from windowkv_service.cache import eviction
from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.cache.entry import Arena, Entry, PlacedBlock
from windowkv_service.cache.speeds import Speeds
from windowkv_service.domain.keys import Address


class Residency:
    """A resident entry owns one reference to each of its blocks."""

    def __init__(self, pools: Mapping[Arena, BlockPool]) -> None:
        self._pools = pools
        self._leaving: set[Entry] = set()  # out of the books while in use; they go with their last user

    def settle(self, entry: Entry, blocks: Sequence[Sequence[PlacedBlock]]) -> None:
        assert not entry.is_resident, f"{entry.cache_id} is resident already"
        entry.blocks = tuple(map(tuple, blocks))

    def vacate(self, entry: Entry) -> None:
        """Give its blocks back; those whose bytes are known stay findable until they are taken."""
        for row in entry.blocks or ():
            for arena in dict.fromkeys(at for at, _ in row):
                self._pools[arena].release([block_id for at, block_id in row if at == arena])
        entry.blocks, entry.index = None, None

    def leave(self, entry: Entry) -> None:
        """Vacate it as soon as nobody uses it."""
        if entry.is_in_use:
            self._leaving.add(entry)
        else:
            self.vacate(entry)

    def unused(self, entry: Entry) -> bool:
        """Its last user has gone; True when it went with them."""
        if entry not in self._leaving:
            return False
        self._leaving.remove(entry)
        self.vacate(entry)
        return True

    def is_leaving(self, entry: Entry) -> bool:
        return entry in self._leaving

    def forget(self, addresses: Iterable[Address]) -> None:
        """What was dropped on purpose is not found on the device either."""
        for address in addresses:
            for pool in self._pools.values():
                pool.forget(address)

    def choose(
        self, entries: Iterable[Entry], arena: Arena, n: int, now: float, speeds: Speeds
    ) -> Sequence[Entry] | None:
        """Who of entries must be evicted for n blocks of the arena; None when that would not do."""
        pool = self._pools[arena]
        stays = ((entry, _stay(entry, now)) for entry in entries if _may_leave(entry))
        missing = n - pool.num_available
        return eviction.choose(
            stays, missing, lambda entry: _blocks_in(entry, arena), pool.references, speeds
        )

    def in_order_of_leaving(self, entries: Iterable[Entry], now: float, speeds: Speeds) -> Sequence[Entry]:
        """Those of entries that may leave, what is cheapest to lose first."""
        leaving = [entry for entry in entries if _may_leave(entry)]
        return sorted(leaving, key=lambda entry: eviction.worth(_stay(entry, now), speeds))

    def check_integrity(self, entries: Iterable[Entry]) -> None:
        held: Counter[PlacedBlock] = Counter()
        for entry in (*entries, *self._leaving):
            held.update(entry.placed_blocks)
        for (arena, block_id), count in held.items():
            there = self._pools[arena].references(block_id)
            assert there >= count, f"block {block_id} is freed under an entry"
        for pool in self._pools.values():
            pool.check_integrity()
        assert all(entry.is_in_use for entry in self._leaving), "an entry that nobody uses has not left"


def _may_leave(entry: Entry) -> bool:
    return entry.is_resident and not entry.pinned and not entry.is_in_use


def _stay(entry: Entry, now: float) -> eviction.Stay:
    return eviction.Stay(
        size_bytes=entry.stored_bytes,
        token_count=entry.token_count,
        tier_below=entry.tier_below,
        idle_s=now - entry.last_used_time,
        hit_count=entry.hit_count,
    )


def _blocks_in(entry: Entry, arena: Arena) -> list[int]:
    return [block_id for at, block_id in entry.placed_blocks if at == arena]
