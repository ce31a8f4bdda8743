"""The books: who is known under which name."""

from __future__ import annotations

import pytest
from entries import entry
from store_books import Books

from windowkv_service.cache.store import Presence
from windowkv_service.domain.requests import ListRequest
from windowkv_service.errors import BadName, CacheNotFound


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
