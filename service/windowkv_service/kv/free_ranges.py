"""Which parts of a memory nobody has."""

from __future__ import annotations

from bisect import bisect_left, insort


class FreeRanges:
    """Of [0, capacity). Neighbours become one when they come back, so that no size that was asked for once stays in the
    way of another. Not thread-safe."""

    def __init__(self, capacity: int) -> None:
        self._size_at: dict[int, int] = {}  # start → size
        self._start_before: dict[int, int] = {}  # end → start
        self._by_size: list[tuple[int, int]] = []  # (size, start), ascending
        if capacity:
            self._add(0, capacity)

    def take(self, size: int) -> int | None:
        """Where so many may be had, out of the smallest range that has them; None where none does."""
        index = bisect_left(self._by_size, (size, 0))
        if index == len(self._by_size):
            return None
        found, start = self._by_size[index]
        self._remove(start, found)
        if found > size:
            self._add(start + size, found - size)
        return start

    def give(self, start: int, size: int) -> None:
        """Back what take gave."""
        end = start + size
        if (before := self._start_before.get(start)) is not None:
            self._remove(before, start - before)
            start = before
        if (behind := self._size_at.get(end)) is not None:
            self._remove(end, behind)
            end += behind
        self._add(start, end - start)

    @property
    def largest(self) -> int:
        return self._by_size[-1][0] if self._by_size else 0

    def _add(self, start: int, size: int) -> None:
        self._size_at[start] = size
        self._start_before[start + size] = start
        insort(self._by_size, (size, start))

    def _remove(self, start: int, size: int) -> None:
        del self._size_at[start], self._start_before[start + size]
        del self._by_size[bisect_left(self._by_size, (size, start))]
