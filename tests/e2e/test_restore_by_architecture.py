"""Every architecture comes back from Redis as it was: sliding layers, shared KV, layers left over."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from asking import answer, asking, create_in_redis, prefilled_tokens, random_tokens
from redis_server import RedisServer
from reference_generation import plain_generate
from running_service import START, running
from tiny_models import ARCHITECTURES, save_tiny_model

from windowkv_service.cache.entry import Entry
from windowkv_service.cache.tiers.redis.commands import KEY_PREFIX

DOCUMENT = random_tokens(1, 101)
QUESTION = random_tokens(2, 9)
LONGER = DOCUMENT + random_tokens(5, 40)


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture
def start(model: Path, redis: RedisServer) -> START:
    options = {"window_size": 8, "chunk_tokens": 32, "device_tier_bytes": 1 << 22}
    return partial(running, model=str(model), redis_url=redis.url, **options)


def test_a_restarted_worker_says_what_transformers_says(start: START, model: Path) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=1.0)
    with start() as worker, asking(worker) as client:
        said = answer(client, QUESTION, cache.name)
        assert said.token_ids == plain_generate(model, DOCUMENT + QUESTION, 14)
        assert (said.usage.source_tier, said.usage.is_recomputed) == ("redis", False)
        assert prefilled_tokens(worker) == 0
        longer = answer(client, LONGER)
        assert longer.token_ids == plain_generate(model, LONGER, 14)
        assert longer.usage.cached_tokens == 96


def lose_every_third_block(redis: RedisServer, entry: Entry) -> None:
    lost = [address for row in entry.block_addresses for address in list(row.values())[::3]]
    redis.client.delete(*(KEY_PREFIX + address.hex().encode() for address in lost))


def test_a_compressed_cache_answers_as_before_and_after_a_loss(
    start: START, model: Path, redis: RedisServer
) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.5)
        expected = answer(client, QUESTION, cache).token_ids
        entry = worker.ask(lambda resources: resources.store.get("default", cache.name))
    with start() as worker, asking(worker) as client:
        assert answer(client, QUESTION, cache.name).token_ids == expected
        assert prefilled_tokens(worker) == 0
    lose_every_third_block(redis, entry)
    with start() as worker, asking(worker) as client:
        said = answer(client, QUESTION, cache.name)
        assert (said.token_ids, said.usage.is_recomputed) == (expected, True)
        full = answer(client, QUESTION, cache.name, selection="full")
        assert full.token_ids == plain_generate(model, DOCUMENT + QUESTION, 14)


def test_a_quantized_cache_answers_as_before_and_after_a_loss(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.5, codec="int4")
        expected = answer(client, QUESTION, cache).token_ids
        entry = worker.ask(lambda resources: resources.store.get("default", cache.name))
    with start() as worker, asking(worker) as client:
        assert answer(client, QUESTION, cache.name).token_ids == expected
        assert prefilled_tokens(worker) == 0
    lose_every_third_block(redis, entry)
    with start() as worker, asking(worker) as client:
        said = answer(client, QUESTION, cache.name)
        assert (said.token_ids, said.usage.is_recomputed) == (expected, True)


@pytest.mark.parametrize("method", ["snapkv", "pyramidinfer"])
def test_a_cache_of_single_tokens_answers_as_before_and_after_a_loss(
    start: START, redis: RedisServer, method: str
) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.5, method=method)
        expected = answer(client, QUESTION, cache).token_ids
        entry = worker.ask(lambda resources: resources.store.get("default", cache.name))
    with start() as worker, asking(worker) as client:
        assert answer(client, QUESTION, cache.name).token_ids == expected
        assert prefilled_tokens(worker) == 0
        assert client.caches.get(cache).stored_bytes == cache.stored_bytes
    lost = (entry.strip_addresses or entry.addresses)[::3]  # a model may have nothing to choose from
    redis.client.delete(*(KEY_PREFIX + address.hex().encode() for address in lost))
    with start() as worker, asking(worker) as client:
        said = answer(client, QUESTION, cache.name)
        assert (said.token_ids, said.usage.is_recomputed) == (expected, True)
