"""Ctrl-C, SIGTERM and a closed terminal, turned into KeyboardInterrupt, so that everything started is stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Handles the signals from `with` to its end; for the main thread."""

    def __init__(self) -> None:
        self._is_held = False
        self._is_due = False

    def __enter__(self) -> Self:
        self._before = [signal.signal(number, self._handle) for number in SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(SIGNALS, self._before, strict=True):
            signal.signal(number, handler)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What comes meanwhile is raised at the end: between a process's birth and the promise to stop it."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._is_due:
            raise KeyboardInterrupt

    def _handle(self, number: int, frame: object) -> None:
        if not self._is_held:
            raise KeyboardInterrupt
        self._is_due = True
