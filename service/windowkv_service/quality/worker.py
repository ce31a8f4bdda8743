"""A worker of the evaluation's own, in its process: the engine, the tiers and the wire that `windowkv serve` has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from windowkv_service.assembly import Service, assemble
from windowkv_service.config import Settings

START_S = 120.0
Device = Literal["auto", "cpu", "cuda"]


@contextmanager
def worker(model: str, device: Device, redis_url: str | None = None) -> Iterator[str]:
    """The address of a worker on a free loopback port; it stops at the end. Raises UnsupportedModel."""
    service = assemble(_settings(model, device, redis_url))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="quality-worker", daemon=True)
    thread.start()
    try:
        port = _run(loop, _start(service))
        try:
            yield f"127.0.0.1:{port}"
        finally:
            _run(loop, _stop(service))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _settings(model: str, device: Device, redis_url: str | None) -> Settings:
    """Nothing that the environment says of another worker's door or tiers may reach this one."""
    settings: dict[str, Any] = {
        "listen": "127.0.0.1:0",
        "model": model,
        "device": device,
        "num_threads": 1,
        "redis_url": redis_url,
        "tokens_file": None,
        "tls_cert_file": None,
        "tls_key_file": None,
        "tls_client_ca_file": None,
        "load_budget_s": 60.0,  # a busy machine must not change what is measured
    }
    return Settings(**settings)


async def _start(service: Service) -> int:
    service.engine.start()
    return await service.server.start()


async def _stop(service: Service) -> None:
    await service.server.stop(grace_s=0.5)
    await service.engine.stop()


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(work, loop).result(START_S)
