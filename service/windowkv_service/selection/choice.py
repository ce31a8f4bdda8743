"""From window scores to window lists: the step that all selectors share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

import windowkv_kernels as kernels
from windowkv_service.kv.layout import KVLayout
from windowkv_service.selection.base import Leader, Windows
from windowkv_service.selection.budgets import Claim, grant


def last_windows(layout: KVLayout, num_tokens: int, num_last: int) -> range:
    """The windows that overlap the last num_last tokens."""
    first = max(0, num_tokens - num_last) // layout.window_size
    return range(first, layout.num_windows(num_tokens) if num_last else first)


def window_bytes(layout: KVLayout, leader: Leader) -> int:
    """One window in all the groups that leader chooses for."""
    return sum(layout.block_bytes(layout.groups[group]) for group in leader.groups)


def num_fitting(layout: KVLayout, num_tokens: int, leaders: Sequence[Leader], budget_bytes: int) -> int:
    """How many windows every led group could have, after what the other groups keep."""
    led = {group for leader in leaders for group in leader.groups}
    for group in layout.groups:
        if group.index not in led:
            budget_bytes -= len(layout.full_windows(group, num_tokens)) * layout.block_bytes(group)
    size = sum(window_bytes(layout, leader) for leader in leaders)
    return max(0, budget_bytes // size) if size else 0


def choose(
    layout: KVLayout,
    num_tokens: int,
    leaders: Sequence[Leader],
    scores: Mapping[int, Tensor],
    *,
    forced: frozenset[int],
    shares: Sequence[float],
    budget_bytes: int,
    redistribute: bool = True,
) -> tuple[Windows, ...]:
    """The best windows of each layout group under one budget.

    scores: leader layer → [num_windows], higher stays; of equals the earlier stays.
    forced: windows that come first, in every group that is led. shares: per leader, relative windows.
    A group without a leader keeps its full windows, and is charged first. A led group has a window at least, be it
    beyond the budget: a table is never empty.
    """
    windows = [tuple(layout.full_windows(group, num_tokens)) for group in layout.groups]
    led = [group for leader in leaders for group in leader.groups]
    for group in layout.groups:
        if group.index not in led:
            budget_bytes -= len(windows[group.index]) * layout.block_bytes(group)
    num_windows = layout.num_windows(num_tokens)
    claims = [
        Claim(share, window_bytes(layout, leader), max(1, len(forced)), num_windows)
        for leader, share in zip(leaders, shares, strict=True)
    ]
    counts = grant(claims, budget_bytes, redistribute=redistribute)
    if leaders:
        of_leaders = torch.stack([scores[leader.layer] for leader in leaders])
        for leader, chosen in zip(leaders, best_windows(of_leaders, counts, forced), strict=True):
            for index in leader.groups:
                windows[index] = chosen
    return tuple(windows)


def best_windows(scores: Tensor, counts: Sequence[int], forced: frozenset[int]) -> list[Windows]:
    """forced and the best of the others, counts[s] in all, in order of position, per row of scores [S, num_windows].

    Chosen on the device that scored; only the choice comes to the host, in one copy, for the books and the tiers find
    blocks by it.
    """
    chosen = kernels.select_windows(scores.float(), counts, forced=sorted(forced))
    together = iter(torch.cat(chosen).tolist())
    return [tuple(islice(together, count)) for count in counts]
