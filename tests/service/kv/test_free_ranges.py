"""Ranges are given out once, and become one again."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from windowkv_service.kv.free_ranges import FreeRanges


@settings(max_examples=200, deadline=None)
@given(
    capacity=st.integers(0, 40),
    steps=st.lists(st.tuples(st.integers(1, 12), st.none() | st.integers(0, 50)), max_size=60),
)
def test_nobody_has_what_somebody_else_has_and_all_of_it_comes_back(
    capacity: int, steps: list[tuple[int, int | None]]
) -> None:
    """Each step takes so many, or gives one of the parts back."""
    ranges, taken = FreeRanges(capacity), list[tuple[int, int]]()
    for size, which in steps:
        if which is not None and taken:
            ranges.give(*taken.pop(which % len(taken)))
            continue
        largest, start = ranges.largest, ranges.take(size)
        assert (start is None) == (largest < size)
        if start is not None:
            assert start + size <= capacity
            assert all(start + size <= other or other + length <= start for other, length in taken)
            taken.append((start, size))
    assert _holes(capacity, taken) == ranges.largest
    for part in taken:
        ranges.give(*part)
    assert ranges.largest == capacity


def _holes(capacity: int, taken: list[tuple[int, int]]) -> int:
    """The largest run of what nobody has."""
    is_taken = [any(start <= place < start + size for start, size in taken) for place in range(capacity)]
    longest = run = 0
    for used in is_taken:
        run = 0 if used else run + 1
        longest = max(longest, run)
    return longest


def test_the_smallest_range_that_fits_is_used() -> None:
    ranges = FreeRanges(10)
    starts = [ranges.take(size) for size in (2, 1, 3, 1, 3)]
    assert starts == [0, 2, 3, 6, 7]
    ranges.give(7, 3)
    ranges.give(0, 2)
    assert ranges.take(2) == 0
    assert ranges.take(2) == 7
