"""What a worker does before its first caller comes leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asking import asking, check_books, frame_keys, random_tokens
from redis_server import RedisServer
from running_service import RunningService, running

from windowkv_service.engine.warm_up import warm_up

WINDOW = 8


@pytest.fixture(params=[{}, {"device_tier_bytes": 1 << 16}], ids=["room", "too small a device"])
def worker(request: pytest.FixtureRequest, model: Path, redis: RedisServer) -> Iterator[RunningService]:
    settings: dict[str, Any] = {"window_size": WINDOW, "device_tier_bytes": 1 << 22, **request.param}
    with running(model=str(model), redis_url=redis.url, **settings) as worker:
        yield worker


def warm(worker: RunningService) -> None:
    asyncio.run_coroutine_threadsafe(warm_up(worker.service.engine), worker.loop).result(timeout=60)


def test_nothing_is_left(worker: RunningService, redis: RedisServer) -> None:
    warm(worker)
    check_books(worker)
    assert worker.ask(lambda resources: list(resources.store.entries())) == []
    assert worker.service.engine._resources.transfers.flush(10)
    assert frame_keys(redis) == []
    with asking(worker) as client:
        assert list(client.caches.list()) == []
        client.caches.create(token_ids=random_tokens(1, 20), kept_ratio=1.0)
