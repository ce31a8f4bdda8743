"""Workers over a real Redis, closed at the end."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from copying_worker import Start, Worker
from redis_server import RedisServer, running


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
    with running() as server:
        yield server


@pytest.fixture
def start() -> Iterator[Start]:
    workers: list[Worker] = []

    def start(server: RedisServer | None, **options: int) -> Worker:
        workers.append(Worker(server, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


@pytest.fixture
def worker(start: Start, server: RedisServer) -> Worker:
    return start(server)
