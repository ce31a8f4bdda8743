"""A worker that comes later finds in Redis what others left there: the same answers, and no prefill."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from asking import answer, asking, create_in_redis, frame_keys, prefilled_tokens, random_tokens
from cache_kinds import cache_kinds
from chosen_tokens import offer
from eventually import eventually
from redis_server import RedisServer
from reference_generation import plain_generate
from running_service import START, running

from windowkv_client import CacheNotFound

WINDOW = 8
DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
KINDS = cache_kinds("kvzip")


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
