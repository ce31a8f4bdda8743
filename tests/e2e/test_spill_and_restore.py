"""What leaves the device comes back from below as it was: the same answers, and no prefill."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asking import answer, asking, create_in_redis, frame_keys, prefilled_tokens, random_tokens
from chosen_tokens import offer
from eventually import eventually
from redis_server import RedisServer
from redis_server import running as running_redis
from reference_generation import masked_generate, plain_generate
from running_service import RunningService, running
from seen_windows import seen_positions
from tiny_models import save_tiny_model

from windowkv_client import CacheNotFound, Client, RetryPolicy, TierDown
from windowkv_service.cache.tiers.host import HostTier

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
START = Callable[..., AbstractContextManager[RunningService]]

# What a cache may be, and which windows its questions see.
KINDS: dict[str, dict[str, Any]] = {
    "uncompressed": {"kept_ratio": 1.0},
    "chosen-by-the-question": {"kept_ratio": 0.4},
    "as-published": {"kept_ratio": 0.4, "retention": "selected"},
    "tokens-of-each-head": {"kept_ratio": 0.4, "method": "kvzip"},
    "tokens-dropped-on-the-way": {"kept_ratio": 0.4, "method": "pyramidinfer"},
    "quantized-below": {"kept_ratio": 0.4, "codec": "int4"},
    "quantized-tokens-of-each-head": {"kept_ratio": 0.4, "method": "kvzip", "codec": "int8"},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def redis_process() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(redis_process: RedisServer) -> RedisServer:
    redis_process.flush()
    return redis_process


@pytest.fixture
def start(model: Path, redis: RedisServer) -> START:
    """Start a worker on the model and the test's Redis."""
    options = {"model": str(model), "window_size": WINDOW, "chunk_tokens": 64, "device_tier_bytes": 1 << 22}
    return partial(running, redis_url=redis.url, **options)


# Leaving the device


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


# Restarting the worker


@pytest.mark.parametrize("kind", KINDS)
def test_a_restarted_worker_answers_from_redis_as_if_nothing_had_happened(start: START, kind: str) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(
            client, token_ids=DOCUMENT, alias="the-contract", labels={"of": "us"}, **KINDS[kind]
        )
        assert cache.durability == "redis"
        before = answer(client, QUESTION, cache)
    with start() as worker, asking(worker) as client:
        known = client.caches.get(cache)
        assert (known.tier, known.labels, known.kept_token_count) == (
            "redis",
            {"of": "us"},
            cache.kept_token_count,
        )
        assert [each.name for each in client.caches.list()] == [cache.name]
        after = answer(client, QUESTION, "aliases/the-contract")
        assert after.token_ids == before.token_ids
        assert (after.usage.source_tier, after.usage.is_recomputed) == ("redis", False)
        assert prefilled_tokens(worker) == 0
        assert client.caches.get(cache).stored_bytes == cache.stored_bytes


def test_the_alias_alone_finds_the_cache_after_a_restart(start: START) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, alias="latest")
    with start() as worker, asking(worker) as client:
        assert client.caches.get("aliases/latest").name == cache.name


def test_a_repointed_alias_stays_repointed_after_a_restart(start: START) -> None:
    with start() as worker, asking(worker) as client:
        older = create_in_redis(client, token_ids=random_tokens(3, 40), alias="latest")
        newer = create_in_redis(client, token_ids=random_tokens(4, 40), alias="latest")
    for asked_first in (older, newer):
        with start() as worker, asking(worker) as client:
            client.caches.get(asked_first)
            assert client.caches.get("aliases/latest").name == newer.name
            assert client.caches.get(older).alias == ""


def test_an_alias_that_one_worker_repoints_leads_the_others_there_at_once(start: START) -> None:
    with start() as one, start() as other, asking(one) as client, asking(other) as neighbour:
        older = create_in_redis(client, token_ids=random_tokens(3, 40), alias="latest")
        assert neighbour.caches.get("aliases/latest").name == older.name
        newer = create_in_redis(neighbour, token_ids=random_tokens(4, 40), alias="latest")
        assert client.caches.get("aliases/latest").name == newer.name
        client.caches.update(older, alias="latest")
        assert eventually(lambda: neighbour.caches.get("aliases/latest").name == older.name)
        client.caches.delete(older)
        with pytest.raises(CacheNotFound):
            client.caches.get("aliases/latest")


def test_an_alias_that_was_taken_away_stays_away(start: START) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=random_tokens(3, 40), alias="latest")
        client.caches.update(cache, alias="")
        with pytest.raises(CacheNotFound):
            client.caches.get("aliases/latest")
    with start() as worker, asking(worker) as client:
        assert client.caches.get(cache).alias == ""
        with pytest.raises(CacheNotFound):
            client.caches.get("aliases/latest")


def test_an_alias_lives_as_long_as_its_cache_is_prolonged(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=random_tokens(3, 40), alias="latest", ttl=60)
        client.caches.update(cache, ttl="1h")
        assert eventually(lambda: min(map(redis.client.pttl, frame_keys(redis))) > 3_000_000)


def test_creating_it_again_on_the_new_worker_is_a_hit(start: START) -> None:
    with start() as worker, asking(worker) as client:
        first = create_in_redis(client, token_ids=DOCUMENT)
    with start() as worker, asking(worker) as client:
        second = client.caches.create(token_ids=DOCUMENT)
        assert second.name == first.name
        assert second.creation is not None
        assert second.creation.is_hit
        assert prefilled_tokens(worker) == 0


def test_a_longer_prompt_builds_on_a_prefix_that_only_redis_holds(start: START, model: Path) -> None:
    with start() as worker, asking(worker) as client:
        create_in_redis(client, token_ids=DOCUMENT)
    longer = DOCUMENT[:131] + random_tokens(5, 60)
    with start() as worker, asking(worker) as client:
        said = answer(client, longer)
        assert said.token_ids == plain_generate(model, longer, 14)
        assert (said.usage.source_tier, said.usage.cached_tokens) == ("redis", 128)
        assert prefilled_tokens(worker) == len(longer) - 1 - 128
        cache = client.caches.create(token_ids=longer, kept_ratio=1.0)
        assert cache.creation is not None
        assert cache.creation.reused_tokens >= 128
        assert answer(client, QUESTION, cache).token_ids == plain_generate(model, longer + QUESTION, 14)


def test_what_one_worker_cached_another_answers(start: START, model: Path) -> None:
    with start() as one, start() as other, asking(one) as client, asking(other) as neighbour:
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=1.0)
        said = answer(neighbour, QUESTION, cache.name)
        assert said.token_ids == plain_generate(model, DOCUMENT + QUESTION, 14)
        assert prefilled_tokens(other) == 0


def test_a_cache_of_a_method_that_a_worker_does_not_know_is_none_of_its_caches(start: START) -> None:
    with start() as worker, asking(worker) as client:
        worker.ask(offer)
        cache = create_in_redis(client, token_ids=DOCUMENT, method="by_lot", kept_ratio=0.4)
    with start() as worker, asking(worker) as client:
        with pytest.raises(CacheNotFound):
            client.caches.get(cache)
        assert list(client.caches.list()) == []


def test_another_secret_shares_nothing_and_finds_nothing(start: START) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT)
    with start(secret="another") as worker, asking(worker) as client:
        with pytest.raises(CacheNotFound):
            client.caches.get(cache)
        assert list(client.caches.list()) == []
        assert answer(client, DOCUMENT).usage.cached_tokens == 0


def test_a_new_calibration_of_leaders_remakes_the_index_once(
    model: Path, redis: RedisServer, tmp_path: Path
) -> None:
    """Blocks do not depend on who leads; the index does."""
    calibrated = tmp_path / "calibrated"
    shutil.copytree(model, calibrated)
    options = {"window_size": WINDOW, "device_tier_bytes": 1 << 22, "redis_url": redis.url}
    with running(model=str(calibrated), **options) as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4)
        former = len(frame_keys(redis))
    leaders = [{"layer": 2, "leads": [0, 1, 2, 3]}]
    profile = {"format": 1, "leaders": leaders, "index_bits": 8, "vote_tokens": 4, "top_p": None}
    profile |= {"keep_first": True, "keep_last_windows": 1}
    (calibrated / "windowkv_profile.json").write_text(json.dumps(profile))
    for is_first in (True, False):
        with running(model=str(calibrated), **options) as worker, asking(worker) as client:
            said = answer(client, QUESTION, cache.name)
            assert said.usage.is_recomputed == is_first
            assert answer(client, QUESTION, cache.name, selection="full").token_ids == plain_generate(
                model, DOCUMENT + QUESTION, 14
            )
            assert eventually(lambda: len(frame_keys(redis)) == former), "the old index is gone"
    with running(model=str(calibrated), **options) as worker, asking(worker) as client:
        client.caches.delete(cache)
        assert frame_keys(redis) == []


# Which windows


def test_windows_chosen_by_the_question_are_the_positions_that_are_seen(start: START, model: Path) -> None:
    """Before a restart and after it, with the chosen blocks fetched from below."""
    positions = []
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=0.4)
        positions.append(check_against_masked_forward(worker, client, cache.name, model))
        published = worker.ask(lambda resources: resources.store.get("default", cache.name).windows)
    with start() as worker, asking(worker) as client:
        positions.append(check_against_masked_forward(worker, client, cache.name, model))
    assert positions[0] == positions[1]
    seen = {position // WINDOW for position in positions[0][0]}
    assert seen != set(published[0]), "the question chose what was published: this test shows nothing"


def check_against_masked_forward(
    worker: RunningService, client: Client, name: str, model: Path
) -> dict[int, list[int]]:
    with client.generate(name, token_ids=QUESTION, max_tokens=300, ignore_eos=True) as stream:
        said = list(next(stream).token_ids)
        kept = seen_positions(worker)
        while len(said) < 14:
            said += next(stream).token_ids
    assert said[:14] == masked_generate(model, DOCUMENT, QUESTION, kept, 14)
    return kept


def test_a_smaller_share_for_one_question_is_a_smaller_table(start: START) -> None:
    with start() as worker, asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.6)
        wide, narrow = answer(client, QUESTION, cache), answer(client, QUESTION, cache, kept_ratio=0.3)
        full = answer(client, QUESTION, cache, selection="full")
    assert narrow.usage.kept_tokens < wide.usage.kept_tokens < full.usage.kept_tokens == len(DOCUMENT)
    assert narrow.usage.device_bytes < 0.3 * cache.full_bytes
    assert narrow.usage.fidelity < wide.usage.fidelity < full.usage.fidelity == 1.0


def test_every_window_on_request_is_the_uncompressed_answer(start: START, model: Path) -> None:
    with start() as worker, asking(worker) as client:
        cache = client.caches.create(token_ids=DOCUMENT, kept_ratio=0.3)
        said = answer(client, QUESTION, cache, selection="full")
        assert said.token_ids == plain_generate(model, DOCUMENT + QUESTION, 14)


# The end of a cache


@pytest.mark.parametrize("kind", KINDS)
def test_a_deleted_cache_leaves_nothing_in_any_tier(start: START, redis: RedisServer, kind: str) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, alias="gone", **KINDS[kind])
        assert frame_keys(redis)
        receipt = client.caches.delete(cache)
        assert set(receipt.confirmed) == {"device", "host", "redis"}
        assert frame_keys(redis) == []
        assert worker.resources.tiers[0].status().used_bytes == 0
        for name in (cache.name, "aliases/gone"):
            with pytest.raises(CacheNotFound):
                client.caches.get(name)
        assert answer(client, DOCUMENT).usage.cached_tokens == 0


def test_deleting_after_a_restart_reaches_redis(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT)
    with start() as worker, asking(worker) as client:
        assert "redis" in client.caches.delete(cache).confirmed
        assert frame_keys(redis) == []


def test_blocks_that_another_cache_shares_survive_a_deletion(
    start: START, redis: RedisServer, model: Path
) -> None:
    shorter = DOCUMENT[:120]
    with start() as worker, asking(worker) as client:
        gone = create_in_redis(client, token_ids=shorter, kept_ratio=1.0)
        kept = create_in_redis(client, token_ids=DOCUMENT, kept_ratio=1.0)
        client.caches.delete(gone)
        expected = plain_generate(model, DOCUMENT + QUESTION, 14)
        assert answer(client, QUESTION, kept).token_ids == expected
    with start() as worker, asking(worker) as client:
        assert answer(client, QUESTION, kept).token_ids == expected
        assert prefilled_tokens(worker) == 0


def test_an_expired_cache_leaves_every_tier_by_itself(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, ttl=2.0)
        assert (cache.durability, cache.stored_bytes > 0) == ("redis", True)
        assert eventually(lambda: not redis.all_keys())
        assert eventually(lambda: worker.resources.tiers[0].status().used_bytes == 0)
        assert eventually(lambda: worker.ask(used_blocks) == 0)
        with pytest.raises(CacheNotFound, match="expired"):
            client.caches.get(cache)


def used_blocks(resources: Any) -> int:
    return sum(pool.num_used + pool.num_cached for pool in resources.device.pools.values())


def test_what_a_restarted_worker_fetched_lives_no_longer_than_its_cache(start: START) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, ttl=60.0)
    with start() as worker, asking(worker) as client:
        answer(client, QUESTION, cache)
        host = worker.resources.tiers[0]
        assert isinstance(host, HostTier)
        lives = [kept.expires_at - time.monotonic() for kept in host._kept.values()]
        assert lives
        assert max(lives) < 60.0


def test_a_shortened_life_ends_everywhere_when_it_says(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, ttl="1h")
        client.caches.update(cache, ttl=0.5)
        assert eventually(lambda: not frame_keys(redis))
        assert eventually(lambda: worker.resources.tiers[0].status().used_bytes == 0)
        with pytest.raises(CacheNotFound, match="expired"):
            client.caches.get(cache)


def test_a_prolonged_life_outlasts_a_restart(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        cache = create_in_redis(client, token_ids=DOCUMENT, ttl=60.0)
        prolonged = client.caches.update(cache, ttl="1h")
    assert min(redis.client.pttl(key) for key in redis.all_keys()) > 3_000_000
    with start() as worker, asking(worker) as client:
        assert client.caches.get(cache).expire_time == prolonged.expire_time
