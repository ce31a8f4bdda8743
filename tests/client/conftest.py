"""A server that is real but for its model, and clients of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from windowkv_client import Cache, Client
from windowkv_client.testing import InProcessServer

DOCUMENT = "The code of Ada is 1234. The code of Bob is 5678. " * 40


@pytest.fixture
def server() -> Iterator[InProcessServer]:
    with InProcessServer(answers={"Who?": "Ada, naïvely."}) as running:
        yield running


@pytest.fixture
def client(server: InProcessServer) -> Iterator[Client]:
    with server.client() as connected:
        yield connected


@pytest.fixture
def shelved(client: Client) -> Cache:
    return client.caches.create(DOCUMENT)
