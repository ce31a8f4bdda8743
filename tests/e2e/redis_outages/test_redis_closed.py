"""Redis refuses us, or our writes: an outage like any other, and reads go on where they can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from asking import answer, asking, metric, random_tokens
from eventually import eventually
from forgetting import forget_all_but_the_books
from redis_outage import (
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
from running_service import START, running

from windowkv_client import CacheNotFound, TierDown


def test_with_a_wrong_password_the_worker_serves_without_redis(
    model: Path, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    redis.client.config_set("requirepass", "right")
    url = f"redis://:wrong@127.0.0.1:{redis.port}/0"
    with running(model=str(model), window_size=8, redis_url=url) as worker, asking(worker) as client:
        assert is_down(client)
        assert answer(client, QUESTION, create(client)).token_ids == expected
        with impatient(worker) as hasty, pytest.raises(TierDown):
            demand(hasty)


def test_a_password_changed_under_us_is_an_outage_and_its_return_the_end_of_it(
    model: Path, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    url = f"redis://:first@127.0.0.1:{redis.port}/0"
    admin = redis.client
    admin.config_set("requirepass", "first")
    with running(model=str(model), window_size=8, redis_url=url) as worker, asking(worker) as client:
        admin.auth("first")
        name = create(client, durability="redis")
        admin.config_set("requirepass", "second")
        admin.client_kill_filter(_type="normal", skipme=True)
        assert eventually(lambda: is_down(client))
        assert answer(client, QUESTION, name).token_ids == expected
        admin.config_set("requirepass", "first")
        assert eventually(lambda: is_up(client))
        assert create(client, durability="redis") == name


def test_killed_connections_are_replaced(start: START, redis: RedisServer, expected: list[int]) -> None:
    redis.start()
    with start() as worker, asking(worker) as client:
        name = create(client, durability="redis")
        worker.ask(forget_all_but_the_books)
        redis.client.client_kill_filter(_type="normal", skipme=True)
        said = answer(client, QUESTION, name)
        assert (said.token_ids, said.usage.is_recomputed) == (expected, False)


def out_of_memory(redis: RedisServer, is_on: bool) -> None:
    redis.client.config_set("maxmemory", "1" if is_on else "0")


def read_only(redis: RedisServer, is_on: bool) -> None:
    """A replica of nobody, that still answers from what it has."""
    redis.client.execute_command("REPLICAOF", *(("127.0.0.1", "1") if is_on else ("NO", "ONE")))


@pytest.mark.parametrize(("refuse", "reason"), [(out_of_memory, "oom"), (read_only, "readonly")])
def test_a_redis_that_takes_no_writes_still_restores(
    start: START,
    redis: RedisServer,
    expected: list[int],
    refuse: Callable[[RedisServer, bool], None],
    reason: str,
) -> None:
    redis.start()
    with start() as worker, asking(worker) as client, impatient(worker) as hasty:
        name = create(client, durability="redis")
        refuse(redis, True)
        with pytest.raises(TierDown):
            hasty.caches.create(token_ids=random_tokens(8, 40), durability="redis", timeout=PATIENT_S)
        assert metric(worker, "windowkv_redis_errors_total", op="write", reason=reason) > 0
        (refused,) = (each.name for each in client.caches.list() if each.name != name)
        worker.ask(forget_all_but_redis)
        with pytest.raises(CacheNotFound):
            client.caches.get(refused)  # what was not written as a whole is not there
        said = answer(client, QUESTION, name)
        assert (said.token_ids, said.usage.source_tier) == (expected, "redis")
        refuse(redis, False)
        fresh = client.caches.create(token_ids=random_tokens(8, 40), durability="redis")
        assert fresh.durability == "redis"


def test_blocks_that_a_full_redis_evicted_are_computed_again(
    start: START, redis: RedisServer, expected: list[int]
) -> None:
    redis.start()
    with start() as worker, asking(worker) as client:
        name = create(client, durability="redis")
        redis.client.config_set("maxmemory-policy", "allkeys-random")
        redis.client.config_set("maxmemory", str(int(redis.client.info("memory")["used_memory"]) - 60_000))
        worker.ask(forget_all_but_the_books)
        said = answer(client, QUESTION, name)
        assert (said.token_ids, said.usage.is_recomputed) == (expected, True)
