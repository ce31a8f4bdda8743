"""The books: expiry, dropping, and those who are still using what left."""

from __future__ import annotations

import pytest
from store_books import Books

from windowkv_service.cache.store import Presence
from windowkv_service.domain.requests import ListRequest
from windowkv_service.errors import CacheExpired, CacheNotFound


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
