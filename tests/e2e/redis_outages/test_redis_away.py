"""Redis is away: answers go on, waits end, and it is found again."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from asking import answer, asking, frame_keys, metric, prefilled_tokens, random_tokens
from eventually import eventually
from forgetting import forget_all_but_the_books
from redis_outage import (
    DOCUMENT,
    PATIENT_S,
    QUESTION,
    create,
    demand,
    forget_all_but_redis,
    impatient,
    is_down,
    is_up,
)
from redis_server import RedisServer
from running_service import START

from windowkv_client import CacheExpired, CacheNotFound, TierDown


def test_a_worker_serves_without_the_redis_it_was_given(start: START, expected: list[int]) -> None:
    with start() as worker, asking(worker) as client:
        assert client.health().is_serving
        assert is_down(client)
        assert answer(client, QUESTION, create(client)).token_ids == expected


def test_what_never_arrived_in_redis_is_not_said_to_be_there(start: START, redis: RedisServer) -> None:
    with start() as worker, asking(worker) as client:
        name = create(client, durability="host")
        redis.start()
        assert eventually(lambda: is_up(client))
        client.caches.update(name, display_name="renamed")
    with start() as other, asking(other) as client, pytest.raises(CacheNotFound):
        client.caches.get(name)


def test_redis_that_comes_later_is_found_and_used(
    start: START, redis: RedisServer, expected: list[int]
) -> None:
    with start() as worker, asking(worker) as client:
        name = create(client)
        redis.start()
        assert eventually(lambda: is_up(client))
        assert client.caches.create(token_ids=DOCUMENT[:90], durability="redis").durability == "redis"
        assert create(client, durability="redis") == name, "what was made without it goes down now"
        worker.ask(forget_all_but_redis)
        prefilled = prefilled_tokens(worker)
        said = answer(client, QUESTION, name)
        assert (said.token_ids, said.usage.source_tier) == (expected, "redis")
        assert prefilled_tokens(worker) == prefilled


def test_durability_that_cannot_be_had_is_refused_and_the_cache_stays(
    start: START, expected: list[int]
) -> None:
    with start() as worker, asking(worker) as client, impatient(worker) as hasty:
        for _ in range(2):  # new, and again as a hit
            with pytest.raises(TierDown) as refusal:
                demand(hasty, alias="here")
            assert refusal.value.retry_after_s is not None
        assert client.caches.get("aliases/here").durability == "host"
        assert answer(client, QUESTION, "aliases/here").token_ids == expected


def test_killed_and_restarted_it_is_left_alone_and_found_again(
    start: START, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    with start() as worker, asking(worker) as client:
        name = create(client, durability="redis", kept_ratio=0.5)
        first = answer(client, QUESTION, name).token_ids
        redis.kill()
        assert answer(client, QUESTION, name).token_ids == first
        assert eventually(lambda: is_down(client))
        assert metric(worker, "windowkv_redis_breaker_state") == 1
        assert answer(client, QUESTION, create(client)).token_ids == expected
        redis.start()
        assert eventually(lambda: is_up(client))
        assert metric(worker, "windowkv_redis_breaker_state") == 0
        client.caches.create(token_ids=random_tokens(9, 50), durability="redis")
        assert redis.all_keys()


def test_all_that_only_redis_had_is_computed_again_when_it_is_gone(
    start: START, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    with start() as worker, asking(worker) as client:
        name = create(client, durability="redis")
        worker.ask(forget_all_but_the_books)
        redis.kill()
        said = answer(client, QUESTION, name)
        assert said.token_ids == expected
        assert (said.usage.is_recomputed, said.usage.miss_reason) == (True, "tier_down")
        assert answer(client, QUESTION, name).usage.source_tier == "device"


@pytest.mark.parametrize("handle", ["its name", "its alias"])
def test_a_handle_that_only_redis_knows_is_unavailable_and_not_unknown(
    start: START, redis: RedisServer, expected: list[int], handle: str
) -> None:
    redis.start()
    with start() as worker, asking(worker) as client, impatient(worker) as hasty:
        name = create(client, durability="redis", alias="known-below")
        known_as = name if handle == "its name" else "aliases/known-below"
        worker.ask(forget_all_but_redis)
        redis.freeze()
        for _ in range(2):  # while it is being found out, and when it is known to be down
            with pytest.raises(TierDown) as refusal:
                answer(hasty, QUESTION, known_as, timeout=PATIENT_S)
            assert (refusal.value.status, refusal.value.retry_after_s) == ("UNAVAILABLE", 1.0)
        for call in (hasty.caches.get, hasty.caches.delete):
            with pytest.raises(TierDown):
                call(known_as, timeout=PATIENT_S)
        assert list(client.caches.list()) == []
        redis.resume()
        assert eventually(lambda: is_up(client))
        assert answer(client, QUESTION, known_as).token_ids == expected


def test_what_expired_or_was_deleted_is_told_so_without_redis(start: START, redis: RedisServer) -> None:
    redis.start()
    with start() as worker, asking(worker) as client, impatient(worker) as hasty:
        deleted, expiring = create(client), create(client, kept_ratio=0.5, ttl=0.5)
        assert eventually(lambda: worker.ask(lambda resources: len(list(resources.store.entries()))) == 1)
        redis.freeze()
        receipt = hasty.caches.delete(deleted, timeout=PATIENT_S)
        assert receipt.unreachable == ("redis",)
        with pytest.raises(CacheExpired):
            hasty.caches.get(expiring, timeout=PATIENT_S)
        with pytest.raises(CacheNotFound):
            hasty.caches.get(deleted, timeout=PATIENT_S)
        redis.resume()
        assert eventually(lambda: not frame_keys(redis)), "what was deleted meanwhile is gone in the end"


def test_it_dies_while_a_question_waits_for_it(start: START, redis: RedisServer, expected: list[int]) -> None:
    redis.start()
    with start(load_budget_s=20.0) as worker, asking(worker) as client, ThreadPoolExecutor(1) as pool:
        name = create(client, durability="redis")
        worker.ask(forget_all_but_the_books)
        redis.freeze()
        waiting = pool.submit(answer, client, QUESTION, name)
        assert eventually(lambda: worker.service.engine.status().num_waiting == 1)
        redis.kill()
        said = waiting.result(timeout=PATIENT_S)
        assert (said.token_ids, said.usage.is_recomputed) == (expected, True)


def test_it_dies_while_a_creation_waits_for_its_acknowledgement(
    start: START, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    with start() as worker, asking(worker) as client, ThreadPoolExecutor(1) as pool:
        redis.freeze()
        waiting = pool.submit(demand, client)
        assert eventually(lambda: prefilled_tokens(worker) == len(DOCUMENT))
        redis.kill()
        assert isinstance(waiting.exception(timeout=PATIENT_S), TierDown)
        assert answer(client, QUESTION, create(client)).token_ids == expected
