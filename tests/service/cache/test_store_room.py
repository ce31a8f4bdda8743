"""The books: eviction, room, adopted entries and their use."""

from __future__ import annotations

import pytest
from entries import entry, place
from store_books import Books

from windowkv_service.cache.store import Presence
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.results import Tier


def test_evicting_leaves_the_entry_and_its_bytes_findable(books: Books) -> None:
    made = books.publish(range(8))
    books.store.evict(made)
    assert books.store.get("tenant", made.name) is made
    assert (made.is_resident, made.index) == (False, None)
    assert [pool.num_cached for pool in books.pools.values()] == [2, 2]


def test_a_restored_entry_is_resident_again(books: Books) -> None:
    made = books.publish(range(8))
    books.store.evict(made)
    books.store.restore(made, place(made, books.pools), "index", 5)
    books.store.check_integrity()
    assert (made.is_resident, made.index, made.index_bytes) == (True, "index", 5)


@pytest.mark.parametrize("protect", ["pin", "pinned"])
def test_what_is_pinned_or_in_use_is_not_evicted(books: Books, protect: str) -> None:
    made = books.publish(range(80))
    if protect == "pin":
        books.store.pin(made)
    else:
        books.store.update(made, pinned=True)
    assert not books.store.make_room(0, 1)
    with pytest.raises(AssertionError):
        books.store.evict(made)
    assert made.is_resident


def test_room_is_made_by_evicting_what_is_cheapest_to_bring_back(books: Books) -> None:
    kept = books.publish(range(100, 140), stored_bytes=1000)
    cheap = books.publish(range(40), stored_bytes=1000, on_host=True)
    assert not books.pools[0].num_available
    assert books.store.make_room(0, 5)
    assert (cheap.is_resident, kept.is_resident) == (False, True)
    assert books.pools[0].num_available == 10
    assert cheap.tier_below is Tier.HOST


def test_indexes_that_grow_beyond_their_share_leave_with_their_entries(books: Books) -> None:
    old, used, pinned, fresh = (
        books.publish(range(100 * n, 100 * n + 8), index_bytes=40, stored_bytes=50) for n in range(4)
    )
    books.store.pin(used)
    books.store.update(pinned, pinned=True)
    books.store.trim_indexes(160, fresh)
    assert old.is_resident
    books.store.trim_indexes(159, fresh)
    assert [each.is_resident for each in (old, used, pinned, fresh)] == [False, True, True, True]
    books.store.trim_indexes(10, fresh)
    assert fresh.is_resident, "the newest has only just come"
    books.store.check_integrity()


def test_of_indexes_those_leave_first_that_are_cheapest_to_bring_back(books: Books) -> None:
    dear = books.publish(range(100, 108), index_bytes=40, stored_bytes=50)
    cheap = books.publish(range(8), index_bytes=40, stored_bytes=50, on_host=True)
    books.store.trim_indexes(100, books.publish(range(200, 208), index_bytes=40, stored_bytes=50))
    assert (cheap.is_resident, dear.is_resident) == (False, True)


def test_room_that_cannot_be_made_evicts_nothing(books: Books) -> None:
    made = books.publish(range(40))
    assert not books.store.make_room(0, 21)
    assert made.is_resident


def test_room_that_is_there_evicts_nothing(books: Books) -> None:
    made = books.publish(range(40))
    assert books.store.make_room(0, 10)
    assert made.is_resident


def test_entries_that_share_their_blocks_leave_together(books: Books) -> None:
    short, long = books.publish(range(40)), books.publish(range(80))
    books.clock.now += 60
    assert books.store.make_room(0, 15)
    books.store.check_integrity()
    assert not short.is_resident
    assert not long.is_resident


def test_adopting_takes_in_a_manifests_entry_and_answers_the_known_one(books: Books) -> None:
    made = entry(range(8), on_redis=True, alias="handbook")
    assert books.store.adopt(made) is made
    assert books.store.adopt(entry(range(8), on_redis=True)) is made
    assert books.store.get("tenant", "aliases/handbook") is made
    books.store.check_integrity()


def test_adopting_ends_a_reservation(books: Books) -> None:
    made = entry(range(8))
    books.store.reserve(made.cache_id, made.addresses)
    books.store.adopt(made)
    books.store.check_integrity()
    assert books.store.lookup(made.cache_id) is Presence.PRESENT


def test_use_is_remembered(books: Books) -> None:
    made = books.publish(range(8))
    books.clock.now += 5
    books.store.pin(made)
    books.store.unpin(made)
    assert made.last_used_time == books.clock.now
    books.store.hit(made)
    assert made.hit_count == 1


def test_unpinning_what_is_not_pinned_is_our_mistake(books: Books) -> None:
    with pytest.raises(AssertionError):
        books.store.unpin(books.publish(range(8)))


def test_the_nearest_prompt_says_where_the_tokens_diverge(books: Books) -> None:
    books.publish(range(8))
    books.publish([*range(30), 99])
    assert books.store.nearest("tenant", [*range(20), 77]) == 20
    assert books.store.nearest("tenant", [77]) == 0
    assert books.store.nearest("stranger", [*range(20)]) == 0


def test_what_is_not_exact_is_nobodys_nearest_prompt(books: Books) -> None:
    books.publish(range(20), codec=Codec.INT8)
    assert books.store.nearest("tenant", [*range(20), 77]) == 0
