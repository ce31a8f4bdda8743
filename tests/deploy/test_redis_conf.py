"""redis.conf, in a real server: it starts, it makes room, it keeps nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis_server
from deployment import DEPLOY
from redis_server import RedisServer

MIB = 1 << 20
CONF = DEPLOY / "redis" / "redis.conf"


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    """With the file's settings, but little room and not open to other machines."""
    with redis_server.running("--include", str(CONF), "--bind", "127.0.0.1", "--maxmemory", "8mb") as running:
        yield running


def test_it_keeps_nothing_on_disk(server: RedisServer) -> None:
    assert server.client.config_get("save") == {"save": ""}
    assert server.client.config_get("appendonly") == {"appendonly": "no"}


def test_when_room_is_short_what_has_a_ttl_makes_room(server: RedisServer) -> None:
    for number in range(16):
        assert server.client.set(f"block-{number}", b"x" * (MIB - 4096), px=60_000)
    info = server.client.info()
    assert info["evicted_keys"] > 0
    assert info["used_memory"] <= 9 * MIB


def test_large_values_are_freed_beside_the_main_thread(server: RedisServer) -> None:
    lazy = server.client.config_get("lazyfree-*")
    assert lazy
    assert set(lazy.values()) <= {"yes", "no"}
    assert [name for name, value in lazy.items() if value == "no"] in ([], ["lazyfree-lazy-user-flush"])


def test_every_setting_is_explained() -> None:
    """Each paragraph of the file is led by a comment."""
    for paragraph in CONF.read_text().split("\n\n"):
        assert paragraph.startswith("#"), paragraph
