"""The wire room, served on loopback with an engine in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from served_wire import ServedWire, serve_wire

from windowkv_service.rpc.server import ServerSettings


@pytest.fixture
def settings() -> ServerSettings:
    """Overridden by tests that serve otherwise."""
    return ServerSettings(listen="127.0.0.1:0", health_interval_s=0.01)


@pytest.fixture
async def wire(settings: ServerSettings) -> AsyncIterator[ServedWire]:
    async with serve_wire(settings) as served:
        yield served
