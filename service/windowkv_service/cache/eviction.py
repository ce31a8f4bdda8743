"""The order of leaving the device: what is cheap to bring back goes first. Pure.

Bringing an entry back costs a copy from host memory, a fetch from Redis, or the prefill again; how likely
that is falls with the time since it was used and grows with how often it was. What leaves first is where this
expected cost, for each byte that is won, is lowest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from windowkv_service.cache.speeds import Speeds
from windowkv_service.domain.results import Tier


@dataclass(frozen=True)
class Stay:
    """What one entry's place on the device costs and is worth. tier_below: the nearest tier that holds a
    copy."""

    size_bytes: int
    token_count: int
    tier_below: Tier | None
    idle_s: float
    hit_count: int


def restore_s(stay: Stay, speeds: Speeds) -> float:
    """Seconds to bring it back."""
    recompute_s = speeds.recompute_s(stay.token_count)
    if stay.tier_below is None:
        return recompute_s
    return min(recompute_s, speeds.load_s(stay.tier_below, stay.size_bytes))


def worth(stay: Stay, speeds: Speeds) -> float:
    """Expected seconds lost by evicting it, for each byte won."""
    likelihood = (1 + stay.hit_count) / (1.0 + max(0.0, stay.idle_s))
    return likelihood * restore_s(stay, speeds) / max(1, stay.size_bytes)


Key = TypeVar("Key")


def choose(
    stays: Iterable[tuple[Key, Stay]],
    num_missing: int,
    blocks_of: Callable[[Key], Sequence[int]],
    references: Callable[[int], int],
    speeds: Speeds,
) -> Sequence[Key] | None:
    """Who must leave for num_missing blocks to come free, cheapest first; None when all together are not
    enough.

    blocks_of: the blocks that somebody holds in the arena that is short. A block comes free when those who
    leave held all its references.
    """
    leaving: list[Key] = []
    given_up: Counter[int] = Counter()
    for key, _ in sorted(stays, key=lambda one: worth(one[1], speeds)) if num_missing > 0 else ():
        block_ids = blocks_of(key)
        if not block_ids:
            continue
        given_up.update(block_ids)
        num_missing -= sum(given_up[block_id] == references(block_id) for block_id in block_ids)
        leaving.append(key)
        if num_missing <= 0:
            break
    return leaving if num_missing <= 0 else None
