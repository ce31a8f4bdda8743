"""GetCache, ListCaches, UpdateCache and DeleteCache."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from refusals import refusal_of
from served_wire import ServedWire

from windowkv.v1 import cache_pb2, types_pb2
from windowkv_service.domain.requests import ListRequest, UpdateRequest

ABSENT = f"caches/{'0' * 40}"


async def update(wire: ServedWire, mask: list[str] | None = None, **cache: Any) -> UpdateRequest:
    """What the engine was asked."""
    update_mask = None if mask is None else FieldMask(paths=mask)
    request = cache_pb2.UpdateCacheRequest(cache=cache_pb2.Cache(**cache), update_mask=update_mask)
    await wire.caches.UpdateCache(request)
    asked = wire.engine.requests[-1]
    assert isinstance(asked, UpdateRequest)
    return asked


async def list_page(wire: ServedWire, **fields: Any) -> cache_pb2.ListCachesResponse:
    return await wire.caches.ListCaches(cache_pb2.ListCachesRequest(**fields))


async def test_a_cache_is_found_by_name_and_by_alias(wire: ServedWire) -> None:
    cache = await wire.create(alias="latest")
    for name in (cache.name, "aliases/latest"):
        answer = await wire.caches.GetCache(cache_pb2.GetCacheRequest(name=name))
        assert answer.cache == cache


async def test_an_unknown_cache_is_not_found(wire: ServedWire) -> None:
    refusal = await refusal_of(wire.caches.GetCache(cache_pb2.GetCacheRequest(name=ABSENT)))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "CACHE_NOT_FOUND")


async def test_pages_follow_each_other_to_the_end(wire: ServedWire) -> None:
    names = [(await wire.create(f"document {number}")).name for number in range(5)]
    seen, page_token = [], ""
    for expected in (2, 2, 1):
        page = await list_page(wire, page_size=2, page_token=page_token)
        assert len(page.caches) == expected
        seen += [cache.name for cache in page.caches]
        page_token = page.next_page_token
    assert (seen, page_token) == (names, "")


async def test_labels_filter_a_list(wire: ServedWire) -> None:
    legal = await wire.create("one", labels={"team": "legal", "year": "2026"})
    await wire.create("two", labels={"team": "sales", "year": "2026"})
    page = await list_page(wire, label_filter={"team": "legal", "year": "2026"})
    assert [cache.name for cache in page.caches] == [legal.name]


async def test_page_size_and_token_reach_the_engine_as_they_are(wire: ServedWire) -> None:
    await list_page(wire, page_size=7, page_token="3")
    assert wire.engine.requests == [ListRequest("default", page_size=7, page_token="3")]


async def test_a_page_token_that_the_engine_refuses_is_the_callers_mistake(wire: ServedWire) -> None:
    refusal = await refusal_of(wire.caches.ListCaches(cache_pb2.ListCachesRequest(page_token="🦆")))
    expected = ("INVALID_ARGUMENT", "BAD_PAGE_TOKEN", "page_token")
    assert (refusal.code, refusal.reason, refusal.field) == expected


@pytest.mark.parametrize(
    ("mask", "change"),
    [
        (["pinned"], {"pinned": False}),
        (["display_name"], {"display_name": "new"}),
        (["labels"], {"labels": {"k": "v"}}),
        (["alias"], {"alias": "new"}),
        (["alias", "labels"], {"alias": "", "labels": {}}),
    ],
)
async def test_a_mask_changes_what_it_names_and_nothing_else(
    wire: ServedWire, mask: list[str], change: dict[str, Any]
) -> None:
    cache = await wire.create()
    everything: dict[str, Any] = {"pinned": True, "display_name": "x", "labels": {"x": "y"}, "alias": "x"}
    asked = await update(wire, mask, name=cache.name, **(everything | change))
    assert asked == UpdateRequest("default", cache.name, **change)


@pytest.mark.parametrize("path", ["ttl", "expire_time"])
async def test_either_name_of_the_expiry_changes_it(wire: ServedWire, path: str) -> None:
    cache = await wire.create()
    asked = await update(wire, [path], name=cache.name, ttl=Duration(seconds=60))
    assert asked == UpdateRequest("default", cache.name, ttl_s=60.0)


async def test_without_a_mask_what_is_set_changes(wire: ServedWire) -> None:
    cache = await wire.create()
    asked = await update(wire, name=cache.name, pinned=True, ttl=Duration(seconds=60))
    assert asked == UpdateRequest("default", cache.name, ttl_s=60.0, pinned=True)


async def test_a_star_replaces_all_that_may_change(wire: ServedWire) -> None:
    cache = await wire.create(pinned=True, alias="old")
    asked = await update(wire, ["*"], name=cache.name, display_name="new")
    assert asked == UpdateRequest(
        "default", cache.name, pinned=False, display_name="new", labels={}, alias=""
    )


async def test_an_update_shows_the_changed_cache(wire: ServedWire) -> None:
    cache = await wire.create()
    changed = cache_pb2.Cache(name=cache.name, display_name="new")
    answer = await wire.caches.UpdateCache(cache_pb2.UpdateCacheRequest(cache=changed))
    assert (answer.cache.name, answer.cache.display_name) == (cache.name, "new")


async def test_a_deletion_says_which_tiers_confirmed(wire: ServedWire) -> None:
    cache = await wire.create()
    receipt = await wire.caches.DeleteCache(cache_pb2.DeleteCacheRequest(name=cache.name))
    assert list(receipt.confirmed_tiers) == [types_pb2.TIER_DEVICE, types_pb2.TIER_HOST]
    assert list(receipt.unreachable_tiers) == [types_pb2.TIER_REDIS]


async def test_deleting_an_unknown_cache_is_refused_unless_allowed(wire: ServedWire) -> None:
    refusal = await refusal_of(wire.caches.DeleteCache(cache_pb2.DeleteCacheRequest(name=ABSENT)))
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "CACHE_NOT_FOUND")
    receipt = await wire.caches.DeleteCache(cache_pb2.DeleteCacheRequest(name=ABSENT, allow_missing=True))
    assert receipt == cache_pb2.DeleteCacheResponse()
