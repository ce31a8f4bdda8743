"""PrefixStore: which prompt is cached, who uses it, what leaves next.

Owned by the engine's worker thread: no locks, no waiting, no input or output. Order of use for a new entry:
lookup, reserve, publish (or abandon). Then pin ... unpin by sequences, evict and restore as the device fills,
drop.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from itertools import islice

from windowkv_service.cache import names, paging
from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.cache.claims import Claims
from windowkv_service.cache.entry import Arena, Entry, PlacedBlock
from windowkv_service.cache.events import CacheEvents, Departure, NoEvents
from windowkv_service.cache.lifetimes import Lifetimes
from windowkv_service.cache.prefix import common_length
from windowkv_service.cache.residency import Residency
from windowkv_service.cache.speeds import Speeds
from windowkv_service.domain.keys import TOKEN_ARRAY, Address
from windowkv_service.domain.requests import ListRequest
from windowkv_service.domain.results import Tier

_NEAREST_CANDIDATES = 32


class Presence(Enum):
    PRESENT = "present"  # in the books: on the device, or to be restored or prefilled again from its record
    IN_FLIGHT = "in_flight"  # being prefilled: wait for it, never compute it twice
    ABSENT = "absent"


class PrefixStore:
    """clock gives seconds since the epoch. A resident entry owns one reference to each of its blocks."""

    def __init__(
        self,
        clock: Callable[[], float],
        pools: Mapping[Arena, BlockPool],
        speeds: Speeds | None = None,
        events: CacheEvents | None = None,
    ) -> None:
        self._clock = clock
        self.speeds = speeds or Speeds()
        self._events = events or NoEvents()
        self._entries: dict[str, Entry] = {}
        # Least recently used first.
        self._by_tenant: dict[str, OrderedDict[str, Entry]] = defaultdict(OrderedDict)
        self._reserved: dict[str, frozenset[Address]] = {}  # with the addresses that the prefill builds on
        self._residency = Residency(pools)
        self._lifetimes = Lifetimes()
        self._claims = Claims()
        self._names = names.Names()

    def lookup(self, cache_id: str) -> Presence:
        if cache_id in self._reserved:
            return Presence.IN_FLIGHT
        entry = self._entries.get(cache_id)
        return Presence.ABSENT if entry is None or self._is_expired(entry) else Presence.PRESENT

    def entry(self, cache_id: str) -> Entry | None:
        """For the worker, who knows identities; callers of the service come by get()."""
        return self._entries[cache_id] if self.lookup(cache_id) is Presence.PRESENT else None

    def entries(self) -> Iterable[Entry]:
        return self._entries.values()

    def reserve(self, cache_id: str, addresses: Iterable[Address] = ()) -> None:
        """From now on IN_FLIGHT, until publish or abandon. Until then the addresses count as needed: what
        others drop meanwhile does not take them away. An expired entry of that identity leaves the books."""
        assert self.lookup(cache_id) is Presence.ABSENT, f"{cache_id} is not absent"
        if cache_id in self._entries:
            self._names.remember_expired(self._entries[cache_id])
            self.drop(self._entries[cache_id])
        self._reserved[cache_id] = frozenset(addresses)
        self._claims.claim(self._reserved[cache_id])

    def publish(self, entry: Entry) -> None:
        """Make it visible, last of all. The entry takes over a reference to each of its blocks."""
        assert entry.cache_id in self._reserved, f"{entry.cache_id} was not reserved"
        self._enter(entry)

    def adopt(self, entry: Entry) -> Entry:
        """Take in what a manifest tells of, not resident; answers the entry of that identity that is in the
        books."""
        known = self.entry(entry.cache_id)
        if known is not None:
            return known
        assert not entry.is_resident
        if entry.cache_id in self._entries:
            self.drop(self._entries[entry.cache_id])
        self._enter(entry)
        return entry

    def abandon(self, cache_id: str) -> None:
        self._claims.release(self._reserved.pop(cache_id, ()))

    def get(self, tenant: str, name: str) -> Entry:
        """By "caches/{id}" or "aliases/{alias}". CacheNotFound for what is unknown or another tenant's."""
        kind, rest = names.parse(name)
        entry = self._entries.get(rest) if kind == "caches" else self._names.holder(tenant, rest)
        if entry is None or entry.tenant != tenant or not entry.is_named:
            raise self._names.refusal(tenant, name)
        if self._is_expired(entry):
            self._names.remember_expired(entry)
            raise self._names.refusal(tenant, name)
        return entry

    def list(self, request: ListRequest) -> tuple[list[Entry], str]:
        """One page, newest first, and the next page's token."""
        mine = self._by_tenant.get(request.tenant, OrderedDict())
        return paging.page([one for one in mine.values() if not self._is_expired(one)], request)

    def manifest_addresses(self, tenant: str) -> frozenset[Address]:
        """Of all the tenant's entries that live."""
        mine = self._by_tenant.get(tenant, OrderedDict())
        return frozenset(one.manifest_address for one in mine.values() if not self._is_expired(one))

    def holder(self, tenant: str, alias: str) -> Entry | None:
        """Who has the alias now."""
        return self._names.holder(tenant, alias)

    def nearest(self, tenant: str, token_ids: Sequence[int]) -> int:
        """Length of the longest prefix shared with a recently used entry of the tenant that could have served: where
        the tokens diverged."""
        mine = self._by_tenant.get(tenant, OrderedDict())
        exact = (one for one in reversed(mine.values()) if one.compression.codec.is_exact)
        recent = islice(exact, _NEAREST_CANDIDATES)
        asked = array(TOKEN_ARRAY, token_ids)
        return max((common_length(one.token_ids, asked) for one in recent), default=0)

    def pin(self, entry: Entry) -> None:
        """A sequence uses it: it does not leave the device before unpin."""
        entry.pins += 1
        entry.last_used_time = self._clock()
        if self._entries.get(entry.cache_id) is entry:
            self._by_tenant[entry.tenant].move_to_end(entry.cache_id)

    def unpin(self, entry: Entry) -> None:
        assert entry.pins > 0, f"{entry.cache_id} is unpinned but not pinned"
        entry.pins -= 1
        if entry.pins == 0 and self._residency.unused(entry):
            self._residency.forget(self.unneeded(entry))  # restored for its users since it was dropped

    def hit(self, entry: Entry) -> None:
        """It served a request."""
        entry.hit_count += 1
        entry.last_used_time = self._clock()

    def restore(
        self, entry: Entry, blocks: Sequence[Sequence[PlacedBlock]], index: object | None, index_bytes: int
    ) -> None:
        """It is on the device again. The entry takes over a reference to each block."""
        is_ours = self._entries.get(entry.cache_id) is entry or self._residency.is_leaving(entry)
        assert is_ours, f"{entry.cache_id} is restored but not in the books"
        self._residency.settle(entry, blocks)
        entry.index, entry.index_bytes = index, index_bytes

    def evict(self, entry: Entry) -> None:
        """It leaves the device; the entry and its copies below stay."""
        assert not entry.is_in_use, f"{entry.cache_id} is in use"
        assert not entry.pinned, f"{entry.cache_id} is pinned"
        if entry.is_resident:
            self._residency.vacate(entry)
            self._events.evicted(Tier.DEVICE, Departure.CAPACITY, 1)

    def make_room(self, arena: Arena, n: int) -> bool:
        """Evict until the arena's pool can give n blocks; False evicts nothing."""
        now = self._clock()
        leaving = self._residency.choose(self._entries.values(), arena, n, now, self.speeds)
        if leaving is None:
            return False
        for entry in leaving:
            self.evict(entry)
        return True

    def trim_indexes(self, limit_bytes: int, newest: Entry) -> None:
        """Indexes lie beside the blocks: evict until those on the device take no more than limit_bytes, or only the
        newest entry and what is in use or pinned is left."""
        with_index = [entry for entry in self._entries.values() if entry.is_resident and entry.index_bytes]
        excess = sum(entry.index_bytes for entry in with_index) - limit_bytes
        others = [entry for entry in with_index if entry is not newest] if excess > 0 else []
        for entry in self._residency.in_order_of_leaving(others, self._clock(), self.speeds):
            if excess > 0:
                self.evict(entry)
                excess -= entry.index_bytes

    def update(
        self,
        entry: Entry,
        *,
        expire_time: float | None = None,
        pinned: bool | None = None,
        display_name: str | None = None,
        labels: Mapping[str, str] | None = None,
        alias: str | None = None,
    ) -> None:
        """None leaves a field as it is. An alias that another entry holds is repointed; "" takes it away."""
        assert self._entries.get(entry.cache_id) is entry, f"{entry.cache_id} is not in the books"
        if expire_time is not None:
            entry.expire_time = expire_time
            entry.longest_expire_time = max(entry.longest_expire_time, expire_time)
            self._lifetimes.schedule(entry)
        entry.pinned = entry.pinned if pinned is None else pinned
        entry.display_name = entry.display_name if display_name is None else display_name
        entry.labels = entry.labels if labels is None else dict(labels)
        if alias is not None:
            self.point(entry, alias, self._clock())
        entry.update_time = self._clock()

    def point(self, entry: Entry, alias: str, given_time: float) -> None:
        """Let alias name the entry since given_time; "" takes its alias away."""
        self._names.give(entry, alias)
        entry.alias_time = given_time

    def reindex(
        self,
        entry: Entry,
        profile_digest: bytes,
        pieces: Sequence[tuple[int, int]],
        addresses: Sequence[Address],
    ) -> Sequence[Address]:
        """The entry's index is of other leaders from now on. Answers what nothing in the books needs any more."""
        former, is_known = entry.index_addresses, self._entries.get(entry.cache_id) is entry
        entry.profile_digest, entry.index_pieces = profile_digest, tuple(pieces)
        entry.index_addresses = tuple(addresses)
        if is_known:
            self._claims.claim(addresses)
            self._claims.release(former)
        return [address for address in former if address not in self._claims]

    def drop(self, entry: Entry) -> Sequence[Address]:
        """Forget it here. Answers the addresses that no other entry of this worker needs: what may go from
        the tiers. While it is in use its place on the device stays, unnamed."""
        assert self._entries.get(entry.cache_id) is entry, f"{entry.cache_id} is not in the books"
        del self._entries[entry.cache_id]
        del self._by_tenant[entry.tenant][entry.cache_id]
        if not self._by_tenant[entry.tenant]:
            del self._by_tenant[entry.tenant]
        self._names.take(entry)
        self._lifetimes.forget(entry)
        self._claims.release(entry.addresses)
        self._residency.forget(orphans := self.unneeded(entry))
        self._residency.leave(entry)
        return orphans

    def unneeded(self, entry: Entry) -> Sequence[Address]:
        """Of an entry that has left the books: the addresses that nothing in the books needs."""
        return [address for address in dict.fromkeys(entry.addresses) if address not in self._claims]

    def expire(self, now: float) -> Sequence[Entry]:
        """Drop what has lived its time, pinned or not; unneeded() says what of it may go from the tiers."""
        expired = self._lifetimes.due(now)
        for entry in expired:
            self._names.remember_expired(entry)
            self.drop(entry)
        self._events.evicted(Tier.DEVICE, Departure.TTL, len(expired))
        return expired

    def check_integrity(self) -> None:
        """Raise AssertionError unless the books agree with themselves and with the pools. Costs
        O(everything)."""
        self._residency.check_integrity(self._entries.values())
        claimed = [*(entry.addresses for entry in self._entries.values()), *self._reserved.values()]
        self._claims.check_integrity(claimed)
        assert not self._reserved.keys() & self._entries.keys(), "an entry is in flight and published"
        everyones = {one for mine in self._by_tenant.values() for one in mine.values()}
        assert everyones == set(self._entries.values()), "an entry is in no tenant's books"
        self._names.check_integrity(everyones)

    def _enter(self, entry: Entry) -> None:
        assert entry.cache_id not in self._entries, f"{entry.cache_id} is in the books already"
        self._entries[entry.cache_id] = entry
        self._by_tenant[entry.tenant][entry.cache_id] = entry
        self._claims.claim(entry.addresses)
        self.abandon(entry.cache_id)
        alias, entry.alias = entry.alias, ""
        self._names.forget_expired(entry)
        self._names.reclaim(entry, alias)
        self._lifetimes.schedule(entry)

    def _is_expired(self, entry: Entry) -> bool:
        return entry.expire_time <= self._clock()
