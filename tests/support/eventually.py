"""Waiting for what another thread or process is about to do: by looking, with a limit, never by a fixed
sleep."""

from __future__ import annotations

import time
from collections.abc import Callable

LIMIT_S = 20.0


def eventually(holds: Callable[[], bool], limit_s: float = LIMIT_S) -> bool:
    """Whether it came to hold before the limit."""
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if holds():
            return True
        time.sleep(0.005)
    return holds()
