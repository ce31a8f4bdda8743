"""The books and the tiers below them under any order of events, checked after every step."""

from __future__ import annotations

from typing import Any

from cache_events import RecordedEvents
from entries import NUM_GROUPS, Clock, entry, place
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from windowkv_service.cache.block_pool import BlockPool, PoolFull
from windowkv_service.cache.entry import Entry
from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.store import PrefixStore, Presence
from windowkv_service.cache.tiers.host import HostTier

NUM_BLOCKS = 8
TOKENS = [*range(24)]  # every prompt is a prefix of these, or of these with another beginning


def payload(address: bytes) -> bytes:
    """What a block of that address holds, for all who compute it."""
    return address * 2


class BooksMachine(RuleBasedStateMachine):
    """device is what the blocks would hold; a block's bytes are wrong if an entry reads another address
    there."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.events = RecordedEvents()
        self.pools = {group: BlockPool(NUM_BLOCKS) for group in range(NUM_GROUPS)}
        self.store = PrefixStore(self.clock, self.pools, events=self.events)
        self.host = HostTier(1 << 20, self.clock)
        self.device: dict[tuple[Any, int], bytes] = {}
        self.in_use: list[Entry] = []
        self.dropped: set[bytes] = set()
        self.seen_resident: set[Entry] = set()  # of those in use

    @rule(length=st.integers(1, 24), start=st.sampled_from([0, 100]), ttl_s=st.sampled_from([5.0, 50.0]))
    def create(self, length: int, start: int, ttl_s: float) -> None:
        """Also an extension of what is there, when the prompt is a longer one with the same beginning."""
        made = entry([start + token for token in TOKENS[:length]], now=self.clock.now, ttl_s=ttl_s)
        if self.store.lookup(made.cache_id) is not Presence.ABSENT:
            return
        self.store.reserve(made.cache_id)
        assert self.store.lookup(made.cache_id) is Presence.IN_FLIGHT
        if not self._settle(made):
            self.store.abandon(made.cache_id)
            return
        self.dropped -= set(made.addresses)
        self.store.publish(made)

    @precondition(lambda self: self._entries())
    @rule(data=st.data())
    def pin(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self._entries()))
        self.store.pin(chosen)
        self.in_use.append(chosen)

    @precondition(lambda self: self.in_use)
    @rule(data=st.data())
    def unpin(self, data: st.DataObject) -> None:
        self.store.unpin(self.in_use.pop(data.draw(st.integers(0, len(self.in_use) - 1))))

    @precondition(lambda self: self._entries())
    @rule(data=st.data())
    def spill(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self._entries()))
        frames = [Frame.of(FrameKind.BLOCK, one, payload(one)) for one in chosen.addresses]
        chosen.on_host = all(self.host.put(frames, chosen.expire_time - self.clock.now))

    @precondition(lambda self: self._entries(resident=False))
    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        chosen = data.draw(st.sampled_from(self._entries(resident=False)))
        if not chosen.on_host:
            return
        found = self.host.get(chosen.addresses, FrameKind.BLOCK)
        assert [bytes(one.payload) for one in found if isinstance(one, Frame)] == [
            *map(payload, chosen.addresses)
        ]
        if self._settle(chosen):
            blocks, chosen.blocks = chosen.blocks, None
            assert blocks is not None
            self.store.restore(chosen, blocks, object(), 1)

    @precondition(lambda self: self._evictable())
    @rule(data=st.data())
    def evict(self, data: st.DataObject) -> None:
        self.store.evict(data.draw(st.sampled_from(self._evictable())))

    @rule(arena=st.integers(0, NUM_GROUPS - 1), n=st.integers(0, NUM_BLOCKS))
    def make_room(self, arena: int, n: int) -> None:
        before = [one for one in self._entries() if one.is_resident]
        if self.store.make_room(arena, n):
            self.pools[arena].release(self.pools[arena].take(n))
        else:
            assert all(one.is_resident for one in before), "evicted for nothing"

    @precondition(lambda self: self._entries())
    @rule(
        data=st.data(),
        pinned=st.booleans(),
        ttl_s=st.none() | st.floats(1, 90),
        alias=st.sampled_from(["", "a", None]),
    )
    def update(self, data: st.DataObject, pinned: bool, ttl_s: float | None, alias: str | None) -> None:
        chosen = data.draw(st.sampled_from(self._entries()))
        expire_time = None if ttl_s is None else self.clock.now + ttl_s
        self.store.update(chosen, pinned=pinned, expire_time=expire_time, alias=alias)
        if ttl_s is not None:
            self.host.extend(chosen.addresses, ttl_s)

    @precondition(lambda self: self._entries())
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        self._forget(self.store.drop(data.draw(st.sampled_from(self._entries()))))

    @rule(seconds=st.sampled_from([1.0, 10.0, 60.0]))
    def expire(self, seconds: float) -> None:
        self.clock.now += seconds
        for gone in self.store.expire(self.clock.now):
            assert gone.expire_time <= self.clock.now
            self._forget(self.store.unneeded(gone))
        assert all(one.expire_time > self.clock.now for one in self.store.entries())

    @invariant()
    def the_books_agree(self) -> None:
        self.store.check_integrity()

    @invariant()
    def who_is_in_use_stays(self) -> None:
        assert all(one.pins == self.in_use.count(one) for one in self.in_use)
        self.seen_resident &= set(self.in_use)
        assert all(one.is_resident for one in self.seen_resident), "blocks were taken from under a user"
        self.seen_resident |= {one for one in self.in_use if one.is_resident}

    @invariant()
    def every_resident_entry_reads_its_own_bytes(self) -> None:
        for one in (*self.store.entries(), *(used for used in self.in_use if used.is_resident)):
            for windows, addresses, blocks in zip(
                one.windows, one.block_addresses, one.blocks or (), strict=False
            ):
                for window, placed in zip(windows, blocks, strict=True):
                    assert self.device[placed] == payload(addresses[window])

    @invariant()
    def what_was_dropped_is_in_no_tier(self) -> None:
        gone = list(self.dropped)
        assert not any(self.host.has(gone))
        assert not any(pool.find(one) is not None for pool in self.pools.values() for one in gone)

    @invariant()
    def spilled_entries_can_be_restored(self) -> None:
        for one in self.store.entries():
            if one.on_host and one.expire_time > self.clock.now:
                assert all(self.host.has(one.addresses))

    def teardown(self) -> None:
        """When all users are gone and all entries dropped, nothing is left."""
        for one in self.in_use:
            self.store.unpin(one)
        for one in list(self.store.entries()):
            self._forget(self.store.drop(one))
        self.store.check_integrity()
        assert all(pool.num_free == NUM_BLOCKS for pool in self.pools.values())
        assert self.host.status().used_bytes == 0

    def _settle(self, one: Entry) -> bool:
        """Give it blocks, evicting for them; False gives none."""
        if not all(self.store.make_room(arena, len(one.windows[0])) for arena in self.pools):
            return False
        try:
            one.blocks = place(one, self.pools)
        except PoolFull:  # a cached block that was to be shared went to make room in the same breath
            raise AssertionError("make_room promised too much") from None
        for windows, addresses, blocks in zip(one.windows, one.block_addresses, one.blocks, strict=True):
            for window, placed in zip(windows, blocks, strict=True):
                self.device[placed] = payload(addresses[window])
        return True

    def _forget(self, addresses: Any) -> None:
        self.host.drop(addresses)
        self.dropped |= set(addresses)

    def _entries(self, resident: bool | None = None) -> list[Entry]:
        live = (one for one in self.store.entries() if one.expire_time > self.clock.now)
        return [one for one in live if resident is None or one.is_resident == resident]

    def _evictable(self) -> list[Entry]:
        return [one for one in self._entries(resident=True) if not (one.is_in_use or one.pinned)]


TestBooksMachine = BooksMachine.TestCase
TestBooksMachine.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
