"""One worker with a Redis below it, and a client for whom both are as new."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import asking
from forgetting import forget_everything
from redis_server import RedisServer
from running_service import RunningService, running

from windowkv_client import Client


@pytest.fixture(scope="module")
def worker(model: Path, redis_process: RedisServer) -> Iterator[RunningService]:
    options = {"model": str(model), "window_size": 8, "device_tier_bytes": 1 << 22}
    with running(redis_url=redis_process.url, **options) as service:
        yield service


@pytest.fixture
def client(worker: RunningService, redis: RedisServer) -> Iterator[Client]:
    worker.ask(forget_everything)
    with asking(worker) as client:
        yield client
