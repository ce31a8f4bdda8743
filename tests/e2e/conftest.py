"""A tiny model and a Redis for each file, emptied before each test, and workers that come and go beside it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from redis_server import RedisServer
from redis_server import running as running_redis
from running_service import START, running
from tiny_models import save_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def redis_process() -> Iterator[RedisServer]:
    """What one test leaves there, the next one finds."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis(redis_process: RedisServer) -> RedisServer:
    redis_process.flush()
    return redis_process


@pytest.fixture
def start(model: Path, redis: RedisServer) -> START:
    """Start a worker on the model and the test's Redis."""
    options = {"model": str(model), "window_size": 8, "chunk_tokens": 64, "device_tier_bytes": 1 << 22}
    return partial(running, redis_url=redis.url, **options)
