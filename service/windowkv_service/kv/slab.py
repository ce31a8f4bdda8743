"""One large piece of host memory, given out in parts: asking the system for page-locked memory takes too long."""

from __future__ import annotations

import threading
import weakref
from collections import defaultdict, deque

from torch import Tensor

ALIGNMENT = 512


class Slab:
    """memory: [capacity] uint8 on the host. A part comes back by itself when its last view is gone.

    Thread-safe. Parts come back to those of their own size, which is what blocks have; where nothing fits, ordinary
    memory serves as well and is only slower to copy.
    """

    def __init__(self, memory: Tensor) -> None:
        self._memory = memory.numpy()
        self._lock = threading.Lock()
        self._num_used = 0
        # A part may come back in any thread and at any line: appending to a deque needs no lock.
        self._free: defaultdict[int, deque[int]] = defaultdict(deque)

    def take(self, size_bytes: int) -> memoryview:
        """So many bytes; what they hold is left over from others."""
        taken = -(-size_bytes // ALIGNMENT) * ALIGNMENT
        with self._lock:
            free = self._free[taken]
            start = free.popleft() if free else self._extend(taken)
        if start is None:
            return memoryview(bytearray(size_bytes))
        part = self._memory[start : start + size_bytes]
        weakref.finalize(part, free.append, start).atexit = False
        return part.data

    def _extend(self, size_bytes: int) -> int | None:
        start = self._num_used
        if start + size_bytes > len(self._memory):
            return None
        self._num_used += size_bytes
        return start
