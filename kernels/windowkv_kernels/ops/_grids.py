"""How many programs share a piece of work."""

from __future__ import annotations

from functools import lru_cache
from math import ceil

GOOD_ENOUGH = 0.9  # of the best filling of the last wave, for fewer pieces to merge


@lru_cache(maxsize=4096)  # asked at every launch that no graph holds
def count_splits(programs_per_split: int, most: int, resident: int) -> int:
    """The fewest pieces, up to most, at which whole waves of resident programs are nearly as full as they can be."""

    def filling(num_splits: int) -> float:
        waves = num_splits * programs_per_split / resident
        return waves / ceil(waves)

    best = max(filling(num_splits) for num_splits in range(1, most + 1))
    return next(count for count in range(1, most + 1) if filling(count) >= GOOD_ENOUGH * best)
