"""The longest cached prefix of a prompt. Content addresses are the index: there is no other to keep in step.

A window of a prompt is present when every group's block of it is, on the device or in a tier below. A group
whose layers see only the last tokens (reach: how many windows back) needs only those windows before the
prefix's end.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import takewhile

from windowkv_service.cache.block_pool import BlockPool
from windowkv_service.domain.keys import Address, Namespace

GroupAddresses = Sequence[Sequence[Address]]  # [group][window]


def group_addresses(namespace: Namespace, digests: Sequence[bytes], num_groups: int) -> list[list[Address]]:
    """Every block of a prompt, [group][window]; digests as from keys.chain_digests."""
    return [[namespace.block(digest, group) for digest in digests] for group in range(num_groups)]


def on_device(addresses: GroupAddresses, pools: Sequence[BlockPool]) -> list[list[bool]]:
    """[group][window]; pools[group] is the pool of the group's arena."""
    return [[pool.find(one) is not None for one in row] for row, pool in zip(addresses, pools, strict=True)]


def lacking(addresses: GroupAddresses, present: Sequence[Sequence[bool]]) -> list[list[Address]]:
    """Per window, the addresses that are not present: what a tier below is asked for."""
    num_windows = min(map(len, addresses), default=0)
    return [
        [row[window] for row, here in zip(addresses, present, strict=True) if not here[window]]
        for window in range(num_windows)
    ]


def leading_windows(windows: Sequence[Sequence[Address]], has: Callable[[Address], bool]) -> int:
    """How many windows from the first have all their addresses."""
    return sum(1 for _ in takewhile(lambda window: all(map(has, window)), windows))


def longest_prefix(present: Sequence[Sequence[bool]], reaches: Sequence[int | None]) -> int:
    """The most windows n such that each group has what a prefix of n windows needs: all n where reach is
    None, else the last reach of them."""
    runs = [_runs(row) for row in present]  # [group][n]: how many windows in a row are present just before n
    longest = min(map(len, present), default=0)
    for n in range(longest, 0, -1):
        needed = (n if reach is None else min(reach, n) for reach in reaches)
        if all(run[n] >= need for run, need in zip(runs, needed, strict=True)):
            return n
    return 0


def _runs(row: Sequence[bool]) -> list[int]:
    runs = [0]
    for is_present in row:
        runs.append(runs[-1] + 1 if is_present else 0)
    return runs


def common_length(one: array[int], other: array[int]) -> int:
    """How many tokens two prompts have in common from the first, both as arrays (whose slices compare as
    fast as memory); work grows with the answer, not with the prompts."""
    length, step = 0, 1024
    shortest = min(len(one), len(other))
    while length < shortest:
        end = min(length + step, shortest)
        if one[length:end] == other[length:end]:
            length = end
        elif step == 1:
            return length
        else:
            step = max(1, (end - length) // 2)
    return length
