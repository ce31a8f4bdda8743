"""A whole worker inside the test's process: real engine, real gRPC on loopback, its own event loop in a
thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch

from windowkv_service.assembly import Service, assemble
from windowkv_service.config import Settings
from windowkv_service.engine.resources import Resources

Result = TypeVar("Result")


class RunningService:
    """target is where a client connects. resources are the engine's own: look at them through ask()."""

    def __init__(self, settings: Settings, clock: Callable[[], float] | None = None) -> None:
        torch.set_num_threads(1)
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self.service: Service = assemble(settings) if clock is None else assemble(settings, clock)
        self.port: int = self._run(self._start())
        self.target = f"127.0.0.1:{self.port}"

    async def _start(self) -> int:
        self.service.engine.start()
        return await self.service.server.start()

    @property
    def resources(self) -> Resources:
        return self.service.engine._resources  # the tests' window into the worker

    def ask(self, look: Callable[[Resources], Result]) -> Result:
        """Run look in the worker's thread, between two steps, as everything that touches the books does."""
        answer: Future[Result] = Future()

        def act() -> None:
            try:
                answer.set_result(look(self.resources))
            except BaseException as error:  # handed to the asking thread
                answer.set_exception(error)

        self.service.engine._inbox.put(act)
        return answer.result(timeout=30)

    def check_integrity(self) -> None:
        self.ask(lambda resources: resources.store.check_integrity())

    def stop(self, drain_s: float = 5.0) -> None:
        async def leave() -> None:
            self.service.server.drain()
            await self.service.engine.drain(drain_s)
            await self.service.server.stop(grace_s=0.5)
            await self.service.engine.stop()

        self._run(leave())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()

    def _run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout=60)


START = Callable[..., AbstractContextManager[RunningService]]  # running() with some settings given


@contextmanager
def running(**settings: Any) -> Iterator[RunningService]:
    """A worker with these settings on a free loopback port; stopped at the end."""
    options: dict[str, Any] = {"listen": "127.0.0.1:0", "device": "cpu", "poison_blocks": True, **settings}
    service = RunningService(Settings(**options))
    try:
        yield service
    finally:
        service.stop()
