"""The Redis tier when Redis suffers. Misses and False, never an exception, never wrong bytes, and back when
it is back."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
from cache_events import RecordedEvents, address, block
from eventually import eventually
from redis_server import RedisServer, free_port, running
from scripted_server import answering

from windowkv_service.cache.frame import Frame, FrameKind
from windowkv_service.cache.tiers.base import MAX_FRAME_BYTES, Found, Miss
from windowkv_service.cache.tiers.redis import RedisTier
from windowkv_service.cache.tiers.redis.tier import KEY_PREFIX
from windowkv_service.domain.results import MissReason, TierHealth

DOWN = Miss(MissReason.TIER_DOWN)
ABSENT = Miss(MissReason.NOT_CACHED)
CORRUPT = Miss(MissReason.CORRUPT)
Connect = Callable[..., RedisTier]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Tiers that are closed when the test ends."""
    with ExitStack() as stack:

        def connect(url: str, **options: object) -> RedisTier:
            tier = RedisTier(url, **options)  # type: ignore[arg-type]
            stack.callback(tier.close)
            return tier

        yield connect


@pytest.fixture(scope="module")
def shared() -> Iterator[RedisServer]:
    with running() as server:
        yield server


@pytest.fixture
def server(shared: RedisServer) -> RedisServer:
    shared.flush()
    return shared


@pytest.fixture
def mortal() -> Iterator[RedisServer]:
    """A server of this test's own."""
    with running() as server:
        yield server


def key(number: int) -> bytes:
    return KEY_PREFIX + address(number).hex().encode()


def get(tier: RedisTier, *numbers: int, budget_s: float | None = None) -> list[Found]:
    return tier.get([address(number) for number in numbers], FrameKind.BLOCK, budget_s=budget_s)


def works(tier: RedisTier) -> bool:
    return tier.put([block(1)], 60.0) == [True] and get(tier, 1) == [block(1)]


def is_down(tier: RedisTier) -> bool:
    return not tier.is_up and tier.status().health is TierHealth.DOWN


def answers_that_it_is_down(tier: RedisTier) -> bool:
    return (
        tier.put([block(1), block(2)], 60.0) == [False, False]
        and get(tier, 1, 2) == [DOWN, DOWN]
        and tier.has([address(1)]) == [False]
        and tier.drop([address(1)]) is False
        and tier.put_manifest(b"list", Frame.of(FrameKind.MANIFEST, address(3), b""), 60.0) is False
        and tier.list_manifests(b"list") is None
    )


def test_refused_at_start_and_found_when_it_comes(connect: Connect) -> None:
    server = RedisServer()
    tier = connect(server.url)
    assert is_down(tier)
    assert answers_that_it_is_down(tier)
    try:
        server.start()
        assert eventually(lambda: tier.is_up)
        assert works(tier)
    finally:
        server.stop()


def test_killed_and_restarted(connect: Connect, mortal: RedisServer) -> None:
    events = RecordedEvents()
    tier = connect(mortal.url, events=events)
    assert works(tier)
    mortal.kill()
    assert answers_that_it_is_down(tier)
    assert eventually(lambda: is_down(tier))
    mortal.start()
    assert eventually(lambda: tier.is_up)
    assert get(tier, 1) == [ABSENT]
    assert works(tier)
    assert events.breaker == [True, False, True, False]
    assert events.redis_failures["connection"] == 1


def test_a_death_in_idleness_is_noticed(connect: Connect, mortal: RedisServer) -> None:
    tier = connect(mortal.url)
    mortal.kill()
    assert eventually(lambda: is_down(tier))


def test_frozen_and_thawed(connect: Connect, mortal: RedisServer) -> None:
    tier = connect(mortal.url, load_budget_s=0.1, write_budget_s=0.1, connect_timeout_s=0.1)
    assert eventually(lambda: works(tier))
    mortal.freeze()
    assert answers_that_it_is_down(tier)  # it ends, though the server never answers
    assert eventually(lambda: is_down(tier))
    mortal.resume()
    assert eventually(lambda: tier.is_up)
    assert eventually(lambda: get(tier, 1) == [block(1)])


def test_frozen_in_the_middle_of_many_values(connect: Connect, mortal: RedisServer) -> None:
    tier = connect(mortal.url, write_budget_s=0.3, connect_timeout_s=0.1)
    frames = [block(number, 1 << 20) for number in range(40)]
    freezing = threading.Timer(0.01, mortal.freeze)
    freezing.start()
    kept = tier.put(frames, 60.0)
    freezing.join()
    mortal.resume()
    assert eventually(lambda: tier.is_up)
    found = get(tier, *range(40), budget_s=10.0)
    assert all(one == frame for one, frame, is_kept in zip(found, frames, kept, strict=True) if is_kept)
    assert all(one in (frame, ABSENT) for one, frame in zip(found, frames, strict=True))


def test_a_pause_costs_no_more_than_the_budget_of_the_read(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url)
    assert tier.put([block(1), block(2)], 60.0) == [True, True]
    server.client.client_pause(400)
    assert get(tier, 1, budget_s=0.02) == [DOWN]
    # The late answer to the first question is not taken for the answer to the second.
    assert eventually(lambda: tier.is_up and get(tier, 2, budget_s=10.0) == [block(2)])
    assert get(tier, 1) == [block(1)]


def test_no_budget_is_no_read(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url)
    assert works(tier)
    assert get(tier, 1, budget_s=0.0) == [DOWN]
    assert get(tier, 1) == [block(1)]


def test_everything_flushed(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url)
    assert works(tier)
    server.flush()
    assert get(tier, 1) == [ABSENT]
    assert works(tier)


def test_out_of_memory_refuses_writes_and_nothing_else(connect: Connect, mortal: RedisServer) -> None:
    events = RecordedEvents()
    tier = connect(mortal.url, events=events)
    assert works(tier)
    mortal.client.config_set("maxmemory", 1)
    assert tier.put([block(2), block(1)], 600.0) == [False, True]
    assert get(tier, 1, 2) == [block(1), ABSENT]
    assert tier.is_up
    assert events.redis_failures["oom"] == 1
    mortal.client.config_set("maxmemory", 0)
    assert tier.put([block(2)], 60.0) == [True]


def test_connections_killed_between_operations(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url)
    for _ in range(3):
        server.client.client_kill_filter(_type="normal", skipme=True)
        assert eventually(lambda: works(tier))


def test_connections_killed_during_operations(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url)
    frames = [block(number, 100_000) for number in range(20)]
    over = threading.Event()

    def harass() -> None:
        while not over.wait(0.003):
            server.client.client_kill_filter(_type="normal", skipme=True)

    thread = threading.Thread(target=harass)
    thread.start()
    for _ in range(10):
        kept = tier.put(frames, 60.0)
        for one, frame, is_kept in zip(get(tier, *range(20)), frames, kept, strict=True):
            assert one in ((frame, DOWN) if is_kept else (frame, DOWN, ABSENT))
    over.set()
    thread.join()
    assert eventually(lambda: all(tier.put(frames, 60.0)) and get(tier, *range(20)) == frames)


def test_a_password_that_is_wrong_until_it_is_right(connect: Connect, mortal: RedisServer) -> None:
    mortal.client.config_set("requirepass", "right")
    tier = connect(mortal.url.replace("//", "//:wrong@"))
    assert is_down(tier)
    assert answers_that_it_is_down(tier)
    assert works(connect(mortal.url.replace("//", "//:right@")))
    admin = connect(mortal.url)  # without one
    assert is_down(admin)


def test_a_user_restricted_by_acl_can_do_all_that_is_needed(connect: Connect, mortal: RedisServer) -> None:
    rules = ["reset", "on", ">pass", "~windowkv:*", "+@read", "+@write", "+eval", "+ping", "+info"]
    mortal.client.execute_command("ACL", "SETUSER", "windowkv", *rules)
    tier = connect(mortal.url.replace("//", "//windowkv:pass@"))
    assert works(tier)
    manifest = Frame.of(FrameKind.MANIFEST, address(2), b"manifest")
    assert tier.put_manifest(b"list", manifest, 60.0)
    assert tier.list_manifests(b"list") == [manifest]
    assert tier.drop_manifest(b"list", address(2))


def test_a_replica_is_read_and_not_written(connect: Connect, mortal: RedisServer) -> None:
    tier = connect(mortal.url)
    assert works(tier)
    mortal.client.replicaof("127.0.0.1", str(free_port()))
    assert tier.put([block(2)], 60.0) == [False]
    assert get(tier, 1) == [block(1)]
    assert tier.drop([address(1)]) is False
    mortal.client.replicaof("NO", "ONE")
    assert tier.put([block(2)], 60.0) == [True]


@pytest.mark.parametrize(
    "answer",
    [
        b"-LOADING Redis is loading the dataset in memory\r\n",
        b"-MASTERDOWN Link with MASTER is down\r\n",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"$-5\r\n",
        b"\0\xff" * 50,
    ],
)
def test_a_server_that_talks_nonsense_is_down(connect: Connect, answer: bytes) -> None:
    with answering(answer) as server:
        tier = connect(server.url, connect_timeout_s=0.2)
        assert is_down(tier)
        assert answers_that_it_is_down(tier)


def test_a_server_that_begins_to_load_is_down_at_once(connect: Connect) -> None:
    with answering(b"$-1\r\n") as server:
        tier = connect(server.url)
        assert get(tier, 1) == [ABSENT]
        server.answer = b"-LOADING Redis is loading the dataset in memory\r\n"
        assert get(tier, 1) == [DOWN]
        assert is_down(tier)


def test_a_connection_lost_in_the_middle_of_a_read_is_replaced(connect: Connect) -> None:
    with answering(b"$-1\r\n") as server:
        tier = connect(server.url)
        server.num_hang_ups = 1
        assert get(tier, 1) == [ABSENT]
        assert server.num_hang_ups == 0
        assert tier.is_up


def test_a_value_longer_than_any_frame_spoils_no_other(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url, load_budget_s=10.0)
    assert all(tier.put([block(1), block(2), block(3)], 60.0))
    for number in (1, 3):
        server.client.setrange(key(number), MAX_FRAME_BYTES + 1, b"x")
    assert get(tier, 1, 2, 3) == [CORRUPT, block(2), CORRUPT]
    assert get(tier, 1, 2, 3) == [ABSENT, block(2), ABSENT]
    assert tier.is_up


def test_a_key_of_another_type_is_corrupt_and_is_healed(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url)
    server.client.lpush(key(1), b"x")
    assert get(tier, 1) == [CORRUPT]
    server.client.lpush(key(1), b"x")
    assert works(tier)


def test_a_closed_tier_is_down(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url)
    assert works(tier)
    tier.close()
    assert is_down(tier)
    assert answers_that_it_is_down(tier)
    tier.close()


def test_many_threads_share_the_tier(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url, load_budget_s=10.0)
    wrong: list[object] = []

    def use(start: int) -> None:
        frames = [block(number, 5000) for number in range(start, start + 20)]
        for _ in range(5):
            if not all(tier.put(frames, 60.0)) or get(tier, *range(start, start + 20)) != frames:
                wrong.append(start)

    threads = [threading.Thread(target=use, args=[start]) for start in (0, 10, 20, 30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_bytes_that_are_there_are_not_sent_again(connect: Connect, server: RedisServer) -> None:
    tier = connect(server.url)
    frame = block(1, 1 << 20)
    assert tier.put([frame], 60.0) == [True]
    before = server.client.info()["total_net_input_bytes"]
    assert tier.put([frame], 600.0) == [True]
    assert server.client.info()["total_net_input_bytes"] - before < 10_000


def test_the_memory_of_the_server_is_known(connect: Connect, mortal: RedisServer) -> None:
    mortal.client.config_set("maxmemory", "100mb")
    tier = connect(mortal.url)
    assert tier.status().capacity_bytes == 100 << 20
    assert tier.status().used_bytes > 0
