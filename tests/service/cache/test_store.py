"""The books: names, users, lives, room."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
from entries import Clock, entry, place

from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.cache.entry import Entry
from windowkv_service.cache.store import PrefixStore, Presence
from windowkv_service.domain.requests import ListRequest
from windowkv_service.domain.results import Tier
from windowkv_service.errors import BadName, BadOption, BadPageToken, CacheExpired, CacheNotFound


class Books:
    """A store over two arenas of num_blocks each, and short ways to fill it."""

    def __init__(self, num_blocks: int = 20) -> None:
        self.clock = Clock()
        self.pools = {0: BlockPool(num_blocks), 1: BlockPool(num_blocks)}
        self.store = PrefixStore(self.clock, self.pools)

    def publish(self, token_ids: Any, **more: Any) -> Entry:
        made = entry(token_ids, now=self.clock.now, **more)
        self.store.reserve(made.cache_id)
        made.blocks = place(made, self.pools)
        made.index = object()
        self.store.publish(made)
        self.store.check_integrity()
        return made

    @property
    def free(self) -> Mapping[int, int]:
        return {arena: pool.num_free for arena, pool in self.pools.items()}


@pytest.fixture
def books() -> Books:
    return Books()


def names(page: tuple[list[Entry], str]) -> list[str]:
    return [one.display_name for one in page[0]]


def test_a_prompt_is_absent_then_in_flight_then_present(books: Books) -> None:
    made = entry(range(8))
    assert books.store.lookup(made.cache_id) is Presence.ABSENT
    books.store.reserve(made.cache_id)
    assert books.store.lookup(made.cache_id) is Presence.IN_FLIGHT
    books.store.publish(made)
    assert books.store.lookup(made.cache_id) is Presence.PRESENT


def test_an_abandoned_prompt_is_absent(books: Books) -> None:
    books.store.reserve("id")
    books.store.abandon("id")
    assert books.store.lookup("id") is Presence.ABSENT
    books.store.check_integrity()


def test_reserving_twice_is_our_mistake(books: Books) -> None:
    books.store.reserve("id")
    with pytest.raises(AssertionError):
        books.store.reserve("id")


def test_publishing_unreserved_is_our_mistake(books: Books) -> None:
    with pytest.raises(AssertionError):
        books.store.publish(entry(range(8)))


def test_an_entry_is_found_by_name_and_by_alias(books: Books) -> None:
    made = books.publish(range(8), alias="handbook")
    assert books.store.get("tenant", made.name) is made
    assert books.store.get("tenant", "aliases/handbook") is made


def test_foreign_and_unknown_names_are_refused_alike(books: Books) -> None:
    made = books.publish(range(8), alias="handbook")
    refusals = []
    for tenant, name in (
        ("stranger", made.name),
        ("stranger", "aliases/handbook"),
        ("tenant", "caches/none"),
    ):
        with pytest.raises(CacheNotFound) as refusal:
            books.store.get(tenant, name)
        refusals.append(
            (refusal.value.message.replace(name, "NAME"), type(refusal.value), refusal.value.field)
        )
    assert len(set(refusals)) == 1


@pytest.mark.parametrize("name", ["", "caches", "caches/", "blocks/1", "caches/a/b", "aliases/" + "x" * 300])
def test_what_is_no_name_is_refused(books: Books, name: str) -> None:
    with pytest.raises(BadName):
        books.store.get("tenant", name)


def test_unnamed_entries_are_used_but_neither_got_nor_listed(books: Books) -> None:
    made = books.publish(range(8), is_named=False)
    assert books.store.entry(made.cache_id) is made
    assert books.store.list(ListRequest("tenant")) == ([], "")
    with pytest.raises(CacheNotFound):
        books.store.get("tenant", made.name)


def test_an_alias_given_to_another_entry_is_repointed(books: Books) -> None:
    old = books.publish(range(8), alias="handbook")
    new = books.publish(range(9), alias="handbook")
    assert books.store.get("tenant", "aliases/handbook") is new
    assert old.alias == ""
    books.store.update(old, alias="handbook")
    assert (books.store.get("tenant", "aliases/handbook"), new.alias) == (old, "")
    books.store.check_integrity()


def test_two_tenants_may_use_the_same_alias(books: Books) -> None:
    mine = books.publish(range(8), alias="handbook")
    theirs = books.publish(range(9), alias="handbook", tenant="other")
    assert books.store.get("tenant", "aliases/handbook") is mine
    assert books.store.get("other", "aliases/handbook") is theirs


def test_an_alias_can_be_taken_away(books: Books) -> None:
    made = books.publish(range(8), alias="handbook")
    books.store.update(made, alias="")
    with pytest.raises(CacheNotFound):
        books.store.get("tenant", "aliases/handbook")


def test_an_update_changes_what_it_names_and_nothing_else(books: Books) -> None:
    made = books.publish(range(8), display_name="old", labels={"a": "1"}, alias="handbook")
    books.clock.now += 5
    books.store.update(made, display_name="new")
    assert (made.display_name, made.labels, made.alias, made.pinned) == ("new", {"a": "1"}, "handbook", False)
    assert made.update_time == books.clock.now
    books.store.update(made, labels={}, pinned=True, expire_time=books.clock.now + 7)
    assert (made.display_name, made.labels, made.pinned) == ("new", {}, True)
    assert made.expire_time == books.clock.now + 7


def test_an_expired_entry_is_gone_before_anybody_swept(books: Books) -> None:
    made = books.publish(range(8), ttl_s=10.0, alias="handbook")
    books.clock.now += 10
    assert books.store.lookup(made.cache_id) is Presence.ABSENT
    assert books.store.entry(made.cache_id) is None
    assert books.store.list(ListRequest("tenant")) == ([], "")
    for name in (made.name, "aliases/handbook"):
        with pytest.raises(CacheExpired):
            books.store.get("tenant", name)


def test_the_owner_is_told_of_an_expiry_and_a_stranger_is_not(books: Books) -> None:
    made = books.publish(range(8), ttl_s=10.0, alias="handbook")
    books.clock.now += 11
    assert books.store.expire(books.clock.now) == [made]
    for name in (made.name, "aliases/handbook"):
        with pytest.raises(CacheExpired):
            books.store.get("tenant", name)
        with pytest.raises(CacheNotFound) as refusal:
            books.store.get("stranger", name)
        assert type(refusal.value) is CacheNotFound


def test_expiry_follows_the_last_change_of_it(books: Books) -> None:
    made = books.publish(range(8), ttl_s=10.0)
    books.store.update(made, expire_time=books.clock.now + 100)
    assert books.store.expire(books.clock.now + 50) == []
    books.store.update(made, expire_time=books.clock.now + 20)
    assert books.store.expire(books.clock.now + 50) == [made]
    assert books.store.expire(books.clock.now + 200) == []
    books.store.check_integrity()


def test_an_expired_prompt_can_be_cached_again(books: Books) -> None:
    first = books.publish(range(8), ttl_s=10.0)
    books.clock.now += 11
    second = books.publish(range(8))
    assert books.store.get("tenant", first.name) is second
    assert books.free == {0: 18, 1: 18}


def test_what_was_cached_again_and_then_dropped_is_unknown_not_expired(books: Books) -> None:
    books.publish(range(8), ttl_s=10.0)
    books.store.expire(books.clock.now + 11)
    again = books.publish(range(8))
    books.store.drop(again)
    with pytest.raises(CacheNotFound) as refusal:
        books.store.get("tenant", again.name)
    assert type(refusal.value) is CacheNotFound


def test_updating_what_has_left_is_our_mistake(books: Books) -> None:
    made = books.publish(range(8))
    books.store.drop(made)
    with pytest.raises(AssertionError):
        books.store.update(made, alias="handbook")
    with pytest.raises(AssertionError):
        books.store.restore(made, [[], []], None, 0)


def test_expiry_frees_the_device_pinned_or_not(books: Books) -> None:
    books.publish(range(8), ttl_s=10.0, pinned=True)
    books.store.expire(books.clock.now + 11)
    books.store.check_integrity()
    assert books.free == {0: 20, 1: 20}


def test_dropping_while_in_use_leaves_the_blocks_to_their_user(books: Books) -> None:
    made = books.publish(range(8))
    books.store.pin(made)
    books.store.drop(made)
    books.store.check_integrity()
    assert books.store.lookup(made.cache_id) is Presence.ABSENT
    assert made.is_resident
    assert books.free == {0: 18, 1: 18}
    books.store.unpin(made)
    books.store.check_integrity()
    assert not made.is_resident
    assert books.free == {0: 20, 1: 20}


def test_the_same_prompt_can_be_published_while_the_dropped_one_is_in_use(books: Books) -> None:
    old = books.publish(range(8))
    books.store.pin(old)
    books.store.drop(old)
    new = books.publish(range(8))
    books.store.unpin(old)
    books.store.check_integrity()
    assert new.is_resident
    assert books.free == {0: 18, 1: 18}


def test_expiring_while_in_use_leaves_the_blocks_to_their_user(books: Books) -> None:
    made = books.publish(range(8), ttl_s=10.0)
    books.store.pin(made)
    books.store.expire(books.clock.now + 11)
    assert made.is_resident
    books.store.unpin(made)
    assert books.free == {0: 20, 1: 20}


def test_a_drop_answers_what_nobody_else_needs(books: Books) -> None:
    short, long = books.publish(range(8)), books.publish(range(14))
    orphans = books.store.drop(long)
    assert set(orphans) == set(long.addresses) - set(short.addresses)
    assert len(orphans) == 4
    assert set(books.store.drop(short)) == set(short.addresses)
    books.store.check_integrity()


def test_what_a_prefill_builds_on_is_needed(books: Books) -> None:
    made = books.publish(range(8))
    books.store.reserve("longer", made.addresses[:1])
    assert set(books.store.drop(made)) == set(made.addresses[1:])
    books.store.check_integrity()
    books.store.abandon("longer")
    books.store.check_integrity()
    assert set(books.store.unneeded(made)) == set(made.addresses)


def test_dropped_bytes_are_not_found_on_the_device(books: Books) -> None:
    made = books.publish(range(8))
    books.store.drop(made)
    assert [books.pools[0].find(one) for one in made.addresses] == [None] * 4
    assert books.free == {0: 20, 1: 20}


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


def test_entries_are_listed_newest_first_page_by_page(books: Books) -> None:
    for number in range(5):
        books.publish(range(number + 1), display_name=str(number))
        books.clock.now += number % 2  # some at the same time
    listed, token = [], ""
    for _ in range(3):
        page = books.store.list(ListRequest("tenant", page_size=2, page_token=token))
        listed += names(page)
        token = page[1]
    assert token == ""
    assert sorted(listed) == ["0", "1", "2", "3", "4"]
    assert listed == names(books.store.list(ListRequest("tenant")))
    assert listed[0] == "4"


def test_pages_are_stable_while_entries_come_and_go(books: Books) -> None:
    made = []
    for number in range(6):
        made.append(books.publish(range(number + 1), display_name=str(number)))
        books.clock.now += 1
    first, token = books.store.list(ListRequest("tenant", page_size=2))
    books.store.drop(first[-1])
    books.publish(range(50), display_name="newer")
    assert names(books.store.list(ListRequest("tenant", page_size=2, page_token=token))) == ["3", "2"]


def test_a_listing_shows_only_ones_own_entries_that_match(books: Books) -> None:
    books.publish(range(1), display_name="both", labels={"a": "1", "b": "2"})
    books.publish(range(2), display_name="one", labels={"a": "1"})
    books.publish(range(3), display_name="other", labels={"a": "2"})
    books.publish(range(4), display_name="theirs", labels={"a": "1"}, tenant="other")
    assert sorted(names(books.store.list(ListRequest("tenant", label_filter={"a": "1"})))) == ["both", "one"]
    assert names(books.store.list(ListRequest("tenant", label_filter={"a": "1", "b": "2"}))) == ["both"]
    assert books.store.list(ListRequest("stranger")) == ([], "")


def forged(*parts: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "garbage",
        "äöü",
        "AAAA",
        "=",
        forged(),
        forged(1, "x", 1.0),
        forged(2, "0123456789abcdef", -1.0, "id"),
        forged(1, "x", "y", "z"),
        forged(1, "x", -1.0, 5),
        base64.urlsafe_b64encode(b"[" * 100_000).decode(),
    ],
)
def test_page_token_garbage_is_refused(books: Books, token: str) -> None:
    with pytest.raises(BadPageToken) as refusal:
        books.store.list(ListRequest("tenant", page_token=token))
    assert refusal.value.field == "page_token"


def test_a_page_token_of_another_listing_is_refused(books: Books) -> None:
    for number in range(3):
        books.publish(range(number + 1))
    _, token = books.store.list(ListRequest("tenant", page_size=1))
    for other in (
        ListRequest("stranger", page_token=token),
        ListRequest("tenant", page_token=token, label_filter={"a": "1"}),
    ):
        with pytest.raises(BadPageToken):
            books.store.list(other)


def test_page_sizes_are_bounded(books: Books) -> None:
    books.publish(range(1))
    with pytest.raises(BadOption):
        books.store.list(ListRequest("tenant", page_size=-1))
    assert len(books.store.list(ListRequest("tenant", page_size=0))[0]) == 1
    assert len(books.store.list(ListRequest("tenant", page_size=10**9))[0]) == 1
