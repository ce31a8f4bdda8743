"""Redis's port is open and nothing answers: nobody waits for longer than the budget."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from asking import answer, asking, random_tokens
from eventually import eventually
from forgetting import forget_all_but_the_books
from redis_outage import (
    PATIENT_S,
    QUESTION,
    create,
    is_down,
    is_up,
)
from redis_server import RedisServer
from running_service import START


def test_what_is_on_the_device_is_answered_while_redis_is_stuck(
    start: START, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    with start() as worker, asking(worker) as client:
        name = create(client, durability="redis", alias="here")
        redis.freeze()
        for known_as in (name, "aliases/here", name):
            said = answer(client, QUESTION, known_as, timeout=PATIENT_S)
            assert (said.token_ids, said.usage.source_tier) == (expected, "device")


def test_a_restore_from_a_stuck_redis_gives_way_to_computing(
    start: START, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    with start() as worker, asking(worker) as client:
        name = create(client, durability="redis", kept_ratio=0.5)
        usual = answer(client, QUESTION, name).token_ids
        worker.ask(forget_all_but_the_books)
        redis.freeze()
        said = answer(client, QUESTION, name, timeout=PATIENT_S)
        assert said.token_ids == usual
        assert (said.usage.is_recomputed, said.usage.miss_reason) == (True, "tier_down")
        assert answer(client, QUESTION, create(client), timeout=PATIENT_S).token_ids == expected


def test_others_go_on_while_one_waits_for_a_stuck_redis(
    start: START, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    with start(load_budget_s=20.0) as worker, asking(worker) as client, ThreadPoolExecutor(1) as pool:
        away = client.caches.create(token_ids=random_tokens(7, 60), kept_ratio=1.0, durability="redis")
        worker.ask(forget_all_but_the_books)
        name = create(client, durability="redis")
        redis.freeze()
        waiting = pool.submit(answer, client, QUESTION, away.name)
        assert eventually(lambda: worker.service.engine.status().num_waiting == 1)
        for _ in range(3):
            assert answer(client, QUESTION, name).token_ids == expected
        assert not waiting.done()
        redis.resume()
        assert waiting.result(timeout=PATIENT_S).usage.source_tier == "redis"


def test_what_host_memory_has_is_fetched_while_many_wait_for_a_stuck_redis(
    start: START, redis: RedisServer
) -> None:
    redis.start()
    with start(load_budget_s=20.0) as worker, asking(worker) as client, ThreadPoolExecutor(4) as pool:
        away = [
            client.caches.create(token_ids=random_tokens(20 + n, 60), kept_ratio=1.0, durability="redis")
            for n in range(4)
        ]
        worker.ask(forget_all_but_the_books)
        near = create(client, kept_ratio=0.5, durability="redis")
        usual = answer(client, QUESTION, near).token_ids
        redis.freeze()
        waiting = [pool.submit(answer, client, QUESTION, cache.name) for cache in away]
        assert eventually(lambda: worker.service.engine.status().num_waiting == 4)
        said = answer(client, random_tokens(30, 9), near)
        assert (said.usage.source_tier, said.usage.blocks_fetched > 0) == ("host", True)
        assert answer(client, QUESTION, near).token_ids == usual
        assert not any(future.done() for future in waiting)
        redis.resume()
        assert all(future.result(timeout=PATIENT_S).usage.source_tier == "redis" for future in waiting)


def test_a_worker_starts_while_redis_is_stuck(start: START, redis: RedisServer, expected: list[int]) -> None:
    redis.start()
    redis.freeze()
    with start() as worker, asking(worker) as client:
        assert is_down(client)
        assert answer(client, QUESTION, create(client)).token_ids == expected


def test_spills_that_redis_does_not_take_do_not_pile_up(start: START, redis: RedisServer) -> None:
    redis.start()
    with start(host_tier_bytes=1 << 20) as worker, asking(worker) as client:
        redis.freeze()
        for seed in range(12):  # each spills about 100 KiB, a quarter of the host tier may wait
            client.caches.create(token_ids=random_tokens(seed, 100), kept_ratio=0.5, timeout=PATIENT_S)
        assert worker.resources.transfers._pending_bytes <= 1 << 18
        redis.resume()
        assert eventually(lambda: is_up(client))
        assert eventually(lambda: worker.resources.transfers.flush(1.0))
        create(client, durability="redis")


def test_a_worker_stops_while_redis_is_stuck(start: START, redis: RedisServer) -> None:
    redis.start()
    with start() as worker, asking(worker) as client:
        create(client)
        redis.freeze()
        create(client, kept_ratio=0.5, timeout=PATIENT_S)


def test_paused_clients_are_waited_for_no_longer_than_the_budget(
    start: START, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    with start() as worker, asking(worker) as client:
        name = create(client, durability="redis")
        worker.ask(forget_all_but_the_books)
        redis.client.execute_command("CLIENT", "PAUSE", "60000")
        assert answer(client, QUESTION, name, timeout=PATIENT_S).token_ids == expected
