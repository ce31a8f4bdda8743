"""The books: lists, page by page."""

from __future__ import annotations

import base64
import json

import pytest
from store_books import Books

from windowkv_service.cache.entry import Entry
from windowkv_service.domain.requests import ListRequest
from windowkv_service.errors import BadOption, BadPageToken


def names(page: tuple[list[Entry], str]) -> list[str]:
    return [one.display_name for one in page[0]]


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
