"""One large piece of host memory, given out in parts: asking the system for page-locked memory takes too long."""

from __future__ import annotations

import threading
import weakref
from collections import deque

from torch import Tensor

from windowkv_service.kv.free_ranges import FreeRanges

ALIGNMENT = 512


class Slab:
    """memory: [capacity] uint8 on the host. A part comes back by itself when its last view is gone.

    Thread-safe. Where nothing fits, ordinary memory serves as well and is only slower to copy.
    """

    def __init__(self, memory: Tensor) -> None:
        self._memory = memory.numpy()
        self._lock = threading.Lock()
        self._free = FreeRanges(len(self._memory) // ALIGNMENT * ALIGNMENT)
        # A part may come back in any thread and at any line: appending to a deque needs no lock.
        self._back: deque[tuple[int, int]] = deque()

    def take(self, size_bytes: int) -> memoryview:
        """So many bytes; what they hold is left over from others."""
        taken = max(1, -(-size_bytes // ALIGNMENT)) * ALIGNMENT
        with self._lock:
            for _ in range(len(self._back)):
                self._free.give(*self._back.popleft())
            start = self._free.take(taken)
        if start is None:
            return memoryview(bytearray(size_bytes))
        part = self._memory[start : start + size_bytes]
        weakref.finalize(part, self._back.append, (start, taken)).atexit = False
        return part.data
