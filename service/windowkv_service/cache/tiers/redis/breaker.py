"""A circuit breaker: while a tier is down nobody waits for it, and one background ping finds out when it is
back."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

RETRY_S = (0.1, 0.4)  # between pings while down; random, so that a fleet does not knock in step
WATCH_S = 1.0  # between pings while up, so that health is known even when nobody asks for bytes


class Breaker:
    """Closed (the tier is up) or open (it is down). ping answers whether it is up and must end by itself."""

    def __init__(self, ping: Callable[[], bool], changed: Callable[[bool], None], name: str) -> None:
        """changed is told True when the breaker opens, False when it closes."""
        self._ping = ping
        self._changed = changed
        self._is_open = True  # until the first ping says otherwise
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._first_ping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=name, daemon=True)

    @property
    def is_open(self) -> bool:
        return self._is_open

    def start(self, wait_s: float) -> None:
        """Begin to watch; returns after the first ping, or after wait_s."""
        self._changed(True)
        self._thread.start()
        self._first_ping.wait(wait_s)

    def trip(self) -> None:
        """The tier failed: ask it for nothing until a ping succeeds."""
        self._set(is_open=True)
        self._wake.set()

    def suspect(self) -> None:
        """Something was slow: ping now, and open if that fails."""
        self._wake.set()

    def close(self) -> None:
        """Stop watching, and stay open."""
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=5.0)
        self._is_open = True

    def _watch(self) -> None:
        while True:
            self._wake.clear()
            if self._closing.is_set():  # asked after clear(): close() sets this first, then wakes
                return
            self._set(is_open=not self._ping())
            self._first_ping.set()
            if self._is_open:
                self._closing.wait(random.uniform(*RETRY_S))
            else:
                self._wake.wait(WATCH_S)

    def _set(self, is_open: bool) -> None:
        with self._lock:
            if self._is_open == is_open:
                return
            self._is_open = is_open
            self._changed(is_open)
