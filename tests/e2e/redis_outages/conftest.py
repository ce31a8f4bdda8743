"""A Redis that is not started yet, and workers that are told of it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from redis_outage import (
    DOCUMENT,
    QUESTION,
)
from redis_server import RedisServer
from reference_generation import plain_generate
from running_service import START, running


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
