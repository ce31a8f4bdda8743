"""Redis may be away, stuck, full or closed to us at any time: answers go on, waits end, and it is found again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from asking import answer, asking, create_in_redis, frame_keys, metric, prefilled_tokens, random_tokens
from eventually import eventually
from redis_server import RedisServer
from reference_generation import plain_generate
from running_service import RunningService, running
from tiny_models import save_tiny_model

from windowkv_client import CacheExpired, CacheNotFound, Client, RetryPolicy, TierDown
from windowkv_service.cache.tiers.host import HostTier
from windowkv_service.engine.resources import Resources

DOCUMENT = random_tokens(1, 157)
QUESTION = random_tokens(2, 9)
PATIENT_S = 30.0  # a call that waits for Redis for ever fails at this
START = Callable[..., AbstractContextManager[RunningService]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def expected(model: Path) -> list[int]:
    return plain_generate(model, DOCUMENT + QUESTION, 14)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    """Not started yet."""
    server = RedisServer()
    yield server
    server.stop()


@pytest.fixture
def start(model: Path, redis: RedisServer) -> START:
    options = {"window_size": 8, "device_tier_bytes": 1 << 22, "load_budget_s": 0.3}
    return partial(running, model=str(model), redis_url=redis.url, **options)


def impatient(worker: RunningService) -> Client:
    """Shows each refusal instead of trying again."""
    return Client(worker.target, retry=RetryPolicy(max_attempts=1))


def create(client: Client, **options: Any) -> str:
    options = {"token_ids": DOCUMENT, "kept_ratio": 1.0, "timeout": PATIENT_S, **options}
    if options.pop("durability", "device") == "redis":
        return create_in_redis(client, **options).name
    return client.caches.create(**options).name


def demand(client: Client, **options: Any) -> None:
    """Create once, and insist on Redis."""
    client.caches.create(token_ids=DOCUMENT, kept_ratio=1.0, durability="redis", timeout=PATIENT_S, **options)


def redis_health(client: Client) -> str:
    worker = client.health().worker
    assert worker is not None
    return {status.tier: status.health for status in worker.tiers}["redis"]


def is_up(client: Client) -> bool:
    return redis_health(client) == "up"


def is_down(client: Client) -> bool:
    return redis_health(client) == "down"


def forget_all_but_redis(resources: Resources) -> None:
    for entry in list(resources.store.entries()):
        resources.store.drop(entry)
    forget_host(resources)


def forget_all_but_the_books(resources: Resources) -> None:
    for entry in resources.store.entries():
        resources.store.evict(entry)
        for pool in resources.device.pools.values():
            for address in entry.addresses:
                pool.forget(address)
    forget_host(resources)


def forget_host(resources: Resources) -> None:
    host = resources.tiers[0]
    assert isinstance(host, HostTier)
    host.clear()


# Away


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


# Stuck: the port is open, nothing answers


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


# Closed to us


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


# Takes no writes


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
