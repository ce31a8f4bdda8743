"""Letting a worker stand still at a chosen place, so that what happens meanwhile happens for sure."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from eventually import eventually
from running_service import RunningService

LIMIT_S = 30.0


class Hold:
    """num_calls: how often the method has been called, the call that stands still included."""

    def __init__(self, service: RunningService) -> None:
        self._service = service
        self._reached = threading.Event()
        self._released = threading.Event()
        self.num_calls = 0

    def stand(self) -> None:
        self._reached.set()
        assert self._released.wait(LIMIT_S), "nobody released the worker"

    def wait_until_reached(self) -> None:
        assert self._reached.wait(LIMIT_S), "the worker did not come to this place"

    def wait_for_mail(self, count: int = 1) -> None:
        """Until so much has been asked of the worker that it has not seen yet."""
        inbox = self._service.service.engine._inbox
        assert eventually(lambda: len(inbox) >= count), f"{len(inbox)} of {count} arrived"

    def wait_for_calls(self, count: int) -> None:
        """Until so many calls are open, whether the worker has seen them or not."""
        replies = self._service.service.engine._replies
        assert eventually(lambda: len(replies) >= count), f"{len(replies)} of {count} arrived"

    def release(self) -> None:
        self._released.set()


@contextmanager
def held(service: RunningService) -> Iterator[Hold]:
    """The worker stands still between two steps."""
    hold = Hold(service)
    service.service.engine._inbox.put(hold.stand)
    hold.wait_until_reached()
    try:
        yield hold
    finally:
        hold.release()


@contextmanager
def holding_at(service: RunningService, method: str, call: int) -> Iterator[Hold]:
    """The worker stands still in its call-th call (from 1) of a method of the model's runner."""
    hold = Hold(service)
    runner = service.resources.runner
    original: Callable[..., Any] = getattr(runner, method)

    def counted(*arguments: Any) -> Any:
        hold.num_calls += 1
        if hold.num_calls == call:
            hold.stand()
        return original(*arguments)

    setattr(runner, method, counted)
    try:
        yield hold
    finally:
        hold.release()
        service.ask(lambda _: delattr(runner, method))
