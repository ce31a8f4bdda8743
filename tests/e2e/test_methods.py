"""Every method through a worker: what it says it keeps is what an answer sees, and it keeps within its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from asking import answer, asking, create_in_redis, prefilled_tokens, random_tokens
from redis_server import running as running_redis
from reference_generation import masked_generate
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv_client import Client
from windowkv_service.cache.tiers.redis.commands import KEY_PREFIX
from windowkv_service.engine.resources import Resources
from windowkv_service.selection import token_selectors

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
TOKEN_METHODS = sorted(token_selectors())


@pytest.fixture(scope="module", params=["llama", "qwen3", "gemma3n"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def service(model: Path) -> Iterator[RunningService]:
    with running(model=str(model), window_size=WINDOW, chunk_tokens=64, device_tier_bytes=1 << 23) as worker:
        yield worker


@pytest.fixture
def client(service: RunningService) -> Iterator[Client]:
    with asking(service) as client:
        yield client


def kept_by(resources: Resources, name: str) -> dict[int, list[list[int]]]:
    """Layer → per KV head, the positions that the entry holds; sliding layers hold all that a later token can see."""
    entry, layout = resources.store.get("default", name), resources.model.layout
    kept = {}
    for group in layout.groups:
        for place, layer in enumerate(group.layers):
            heads = range(layout.num_kv_heads)
            lanes = entry.tokens.get(group.index)
            kept[layer] = [
                list(range(len(DOCUMENT)))
                if lanes is None
                else list(lanes[place * layout.num_kv_heads + head])
                for head in heads
            ]
    return {layer: kept[owner] for layer, owner in enumerate(layout.owners)}


@pytest.mark.parametrize("method", TOKEN_METHODS)
def test_an_answer_sees_the_tokens_that_the_method_kept_and_no_others(
    client: Client, service: RunningService, model: Path, method: str
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, method=method, kept_ratio=0.5, retention="selected")
    kept = service.ask(lambda resources: kept_by(resources, cache.name))
    assert any(len(head) < len(DOCUMENT) for heads in kept.values() for head in heads)
    assert cache.stored_bytes <= 0.5 * cache.full_bytes
    assert 0 < cache.fidelity < 1
    assert answer(client, QUESTION, cache).token_ids == masked_generate(model, DOCUMENT, QUESTION, kept, 14)


def test_a_method_that_sees_all_queries_or_repeats_does_so_behind_a_cached_prefix(client: Client) -> None:
    """A prefix that is reused brings keys and no queries: what needs those computes it again."""
    longer = DOCUMENT + random_tokens(4, 60)
    for method in ("h2o", "expected-attention", "kvzip"):
        options = {"method": method, "kept_ratio": 0.5, "retention": "selected"}
        fresh = client.caches.create(token_ids=longer, **options)
        said = answer(client, QUESTION, fresh).token_ids
        client.caches.delete(fresh)
        client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0)
        behind = client.caches.create(token_ids=longer, **options)
        assert answer(client, QUESTION, behind).token_ids == said
        assert behind.fidelity == pytest.approx(fresh.fidelity, abs=1e-5)
        client.caches.delete(behind)


def page_bytes(resources: Resources) -> int:
    layout = resources.model.layout
    numbers = 2 * -(-len(DOCUMENT) // WINDOW) * layout.num_kv_heads * layout.head_dim
    return len(layout.selectable_groups) * numbers * layout.itemsize


def test_quest_holds_the_bounds_of_every_selectable_group_and_lets_the_question_choose(
    client: Client, service: RunningService
) -> None:
    cache = client.caches.create(token_ids=DOCUMENT, method="quest", kept_ratio=0.5)
    assert cache.index_bytes == service.ask(page_bytes)
    assert cache.stored_bytes <= 0.5 * cache.full_bytes
    said = answer(client, QUESTION, cache)
    assert said.usage.device_bytes <= 0.5 * cache.full_bytes
    assert answer(client, QUESTION, cache).token_ids == said.token_ids
    assert 0 < said.usage.fidelity <= 1


def test_quests_bounds_come_back_from_redis_and_are_made_again_when_lost(model: Path) -> None:
    options = {"model": str(model), "window_size": WINDOW, "device_tier_bytes": 1 << 22}
    with running_redis() as redis:
        start = partial(running, redis_url=redis.url, **options)
        with start() as worker, asking(worker) as client:
            cache = create_in_redis(client, token_ids=DOCUMENT, method="quest", kept_ratio=0.5)
            expected = answer(client, QUESTION, cache).token_ids
            pieces = worker.ask(lambda resources: resources.store.get("default", cache.name).index_addresses)
        with start() as worker, asking(worker) as client:
            said = answer(client, QUESTION, cache.name)
            assert (said.token_ids, said.usage.is_recomputed) == (expected, False)
            assert prefilled_tokens(worker) == 0
        keys = [KEY_PREFIX + piece.hex().encode() for piece in pieces]
        assert redis.client.delete(*keys) == len(keys)
        with start() as worker, asking(worker) as client:
            said = answer(client, QUESTION, cache.name)
            assert (said.token_ids, said.usage.is_recomputed) == (expected, True)
