"""What leaves the device comes back from host memory as it was; what host memory has no room for is computed again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import answer, asking, prefilled_tokens, random_tokens
from cache_kinds import cache_kinds
from reference_generation import plain_generate
from running_service import RunningService, running

from windowkv_client import Client, RetryPolicy, TierDown

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
KINDS = cache_kinds("kvzip")


@pytest.fixture(scope="module")
def narrow(model: Path) -> Iterator[RunningService]:
    """A worker whose device holds one document of ours and a little more."""
    with running(model=str(model), window_size=WINDOW, device_tier_bytes=32 * WINDOW * 1024) as worker:
        yield worker


@pytest.mark.parametrize("kind", KINDS)
def test_an_evicted_cache_comes_back_from_host_memory(narrow: RunningService, kind: str) -> None:
    with asking(narrow) as client:
        cache = client.caches.create(token_ids=DOCUMENT, **KINDS[kind])
        before = answer(client, QUESTION, cache)
        narrow.ask(lambda resources: evict(resources, cache.name))
        assert client.caches.get(cache).stored_bytes == 0
        assert client.caches.get(cache).tier == "host"
        prefilled = prefilled_tokens(narrow)
        after = answer(client, QUESTION, cache)
        assert after.token_ids == before.token_ids
        assert (after.usage.source_tier, after.usage.is_recomputed) == ("host", False)
        assert prefilled_tokens(narrow) == prefilled
        client.caches.delete(cache)


def evict(resources: Any, name: str) -> None:
    """Off the device for sure: what nobody holds is forgotten there too."""
    entry = resources.store.get("default", name)
    resources.store.evict(entry)
    for pool in resources.device.pools.values():
        for address in entry.addresses:
            pool.forget(address)


def test_documents_that_do_not_fit_together_take_turns_on_the_device(
    narrow: RunningService, model: Path
) -> None:
    with asking(narrow) as client:
        documents = [random_tokens(seed, 150) for seed in (11, 12, 13)]
        caches = [client.caches.create(token_ids=ids, kept_ratio=1.0) for ids in documents]
        assert sum(client.caches.get(cache).stored_bytes > 0 for cache in caches) == 1
        prefilled = prefilled_tokens(narrow)
        for ids, cache in [*zip(documents, caches, strict=True)] * 2:
            said = answer(client, QUESTION, cache)
            assert said.token_ids == plain_generate(model, ids + QUESTION, 14)
        assert prefilled_tokens(narrow) == prefilled
        for cache in caches:
            client.caches.delete(cache)


def test_tokens_and_windows_make_room_for_each_other_on_the_device(narrow: RunningService) -> None:
    with asking(narrow) as client:
        kinds = [
            {"kept_ratio": 0.8, "method": "snapkv"},
            {"kept_ratio": 1.0},
            {"kept_ratio": 0.8, "method": "h2o"},
        ]
        documents = [random_tokens(seed, 150) for seed in (21, 22, 23)]
        caches, before = [], []
        for ids, kind in zip(documents, kinds, strict=True):
            caches.append(client.caches.create(token_ids=ids, **kind))
            before.append(answer(client, QUESTION, caches[-1]).token_ids)
        assert sum(client.caches.get(cache).stored_bytes > 0 for cache in caches) == 1
        prefilled = prefilled_tokens(narrow)
        for said, cache in [*zip(before, caches, strict=True)] * 2:
            assert answer(client, QUESTION, cache).token_ids == said
        assert prefilled_tokens(narrow) == prefilled
        for cache in caches:
            client.caches.delete(cache)


def test_host_memory_too_small_for_a_document_does_not_acknowledge_it(model: Path) -> None:
    settings = {"window_size": WINDOW, "device_tier_bytes": 1 << 22, "host_tier_bytes": 60_000}
    with running(model=str(model), **settings) as worker, asking(worker) as client:
        with Client(worker.target, retry=RetryPolicy(max_attempts=1)) as hasty, pytest.raises(TierDown):
            hasty.caches.create(token_ids=DOCUMENT, kept_ratio=0.4, durability="host")
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.4)
        assert cache.durability == "device"
        said = answer(client, QUESTION, cache, selection="full")
        assert said.token_ids == plain_generate(model, DOCUMENT + QUESTION, 14)
        assert (said.usage.is_recomputed, said.usage.miss_reason) == (True, "evicted")
        small = client.caches.create(token_ids=DOCUMENT[:30], kept_ratio=1.0, durability="host")
        assert small.durability == "host"
