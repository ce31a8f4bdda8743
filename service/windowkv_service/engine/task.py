"""A request on its way through the engine.

Each request is a walk: a generator that reads from top to bottom and yields whatever it has to wait for. The worker
resumes it when the wait is over. Closing the generator runs its `finally` clauses: that is the one exit path for
finished, cancelled and broken requests alike.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

Result = TypeVar("Result")


class Wait(Protocol):
    def is_over(self) -> bool:
        """Cheap and without waiting: asked once per step of the worker."""


Walk = Generator[Wait, None, Result]


@dataclass(frozen=True)
class Until:
    """Over as soon as condition() holds."""

    condition: Callable[[], bool]

    def is_over(self) -> bool:
        return self.condition()


@dataclass(frozen=True)
class Soon(Until):
    """So soon that the worker looks again without resting."""


class Turn:
    """Wants the model for one chunk. The worker gives one turn per step, first come first served."""

    def is_over(self) -> bool:
        return False


TURN = Turn()


@dataclass(eq=False)
class Task:
    """One walk and what the worker knows about it."""

    request_id: str
    walk: Walk[Any]
    deadline: float | None  # time.monotonic() seconds
    wait: Wait | None = field(default=None)

    def is_late(self, now: float) -> bool:
        return self.deadline is not None and now >= self.deadline
