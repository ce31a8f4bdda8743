"""What is chosen beside the best windows."""

from __future__ import annotations

from math import log
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Extra = Literal["best tokens", "spread windows", "weighted windows"]


class Tokens(NamedTuple):
    """positions: [S], ascending. weights: [S], added to their scores: log of how many tokens one stands for."""

    positions: Tensor
    weights: Tensor


def add_extra(extra: Extra, chosen: Tensor, votes: Tensor, num_extra: int, window_size: int) -> Tokens:
    """chosen [S] and at most num_extra tokens more of the n that have votes [n].

    best tokens: single ones, those with the most votes. spread windows: whole windows, evenly spaced over what was not
    chosen. weighted windows: the same, standing for all that was not chosen: a sample whose sums are estimates of the
    sums over everything (as MagicPIG's, arXiv 2410.16179, but with equal odds for all).
    """
    is_free = torch.ones(len(votes), dtype=torch.bool)
    is_free[chosen] = False
    if extra == "best tokens":
        others = votes.masked_fill(~is_free, -1.0)
        added = others.topk(min(num_extra, int(is_free.sum()))).indices
    else:
        added = _spread(is_free, num_extra // window_size, window_size)
    weight = log(int(is_free.sum()) / len(added)) if extra == "weighted windows" and len(added) else 0.0
    positions, order = torch.cat([chosen, added]).sort()
    weights = torch.cat([torch.zeros(len(chosen)), torch.full((len(added),), weight)])
    return Tokens(positions, weights[order])


def _spread(is_free: Tensor, num_windows: int, window_size: int) -> Tensor:
    """The tokens of at most num_windows whole windows that are free, evenly spaced among these."""
    whole = len(is_free) // window_size * window_size
    free = is_free[:whole].view(-1, window_size).all(1).nonzero()[:, 0]
    count = min(num_windows, len(free))
    picked = free[(torch.arange(count) * len(free) + len(free) // 2) // max(1, count)]
    return (picked[:, None] * window_size + torch.arange(window_size)).flatten()
