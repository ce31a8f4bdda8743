"""The only bridge between the event loop and the worker's thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from windowkv_service.domain.results import GenerateChunk

GATHER_S = 0.01
Delivery = tuple["Reply", Any]


class Inbox:
    """What the worker has been asked to do; put from any thread, taken by the worker's."""

    def __init__(self) -> None:
        self._mail: deque[Callable[[], None]] = deque()
        self._arrived = threading.Event()

    def put(self, act: Callable[[], None]) -> None:
        self._mail.append(act)
        self._arrived.set()

    def __len__(self) -> int:
        """How much is waiting to be taken."""
        return len(self._mail)

    def wake(self) -> None:
        """Let a waiting worker look around, without mail."""
        self._arrived.set()

    def take(self, timeout_s: float) -> list[Callable[[], None]]:
        """Everything that has arrived; waits up to timeout_s for something when there is nothing."""
        if timeout_s > 0:
            self._arrived.wait(timeout_s)
        self._arrived.clear()
        return [self._mail.popleft() for _ in range(len(self._mail))]


@dataclass(frozen=True)
class Finished:
    result: Any


@dataclass(frozen=True)
class Failed:
    error: BaseException


@dataclass(eq=False)
class Reply:
    """Where one request's events arrive, on the event loop's side."""

    events: deque[Any] = field(default_factory=deque)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self) -> list[Any]:
        """Everything that has arrived since the last call; waits for at least one event."""
        await self.arrived.wait()
        self.arrived.clear()
        events = list(self.events)
        self.events.clear()
        return events


class Outbox:
    """Events for callers, gathered in the worker's thread and carried over in one call.

    What a caller waits for (a first token, an end, progress) goes with the step that made it. Tokens in the middle of
    an answer may gather for GATHER_S: a message costs the event loop what a small model's token costs the worker, and
    both share one interpreter.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._batch: list[Delivery] = []
        self._is_urgent = False
        self._flushed_at = 0.0

    def put(self, reply: Reply, event: Any) -> None:
        self._batch.append((reply, event))
        self._is_urgent = self._is_urgent or not _can_wait(event)

    def flush(self) -> None:
        """Called at the end of every step; tokens that may wait do so until a later one."""
        now = time.monotonic()
        if self._batch and (self._is_urgent or now - self._flushed_at >= GATHER_S):
            batch, self._batch = self._batch, []
            self._is_urgent, self._flushed_at = False, now
            self._loop.call_soon_threadsafe(_deliver, batch)


def _can_wait(event: Any) -> bool:
    return isinstance(event, GenerateChunk) and event.index > 0


def _deliver(batch: list[Delivery]) -> None:
    for reply, event in batch:
        reply.events.append(event)
        reply.arrived.set()
