"""When entries expire: asked often, answered in O(those that are due)."""

from __future__ import annotations

import heapq
from itertools import count

from windowkv_service.cache.entry import Entry


class Lifetimes:
    """Each entry is looked at once at the time that was scheduled; if it was given longer meanwhile, again
    then."""

    def __init__(self) -> None:
        self._scheduled: dict[Entry, float] = {}
        self._due: list[tuple[float, int, Entry]] = []  # a heap; what _scheduled contradicts is stale
        self._serial = count()  # entries themselves have no order

    def schedule(self, entry: Entry) -> None:
        """Its expire_time is new."""
        if entry.expire_time < self._scheduled.get(entry, float("inf")):
            self._scheduled[entry] = entry.expire_time
            heapq.heappush(self._due, (entry.expire_time, next(self._serial), entry))

    def forget(self, entry: Entry) -> None:
        self._scheduled.pop(entry, None)

    def due(self, now: float) -> list[Entry]:
        """Those whose time is over, each answered once."""
        over = []
        while self._due and self._due[0][0] <= now:
            at, _, entry = heapq.heappop(self._due)
            if self._scheduled.get(entry) != at:
                continue
            del self._scheduled[entry]
            if entry.expire_time <= now:
                over.append(entry)
            else:
                self.schedule(entry)
        return over
