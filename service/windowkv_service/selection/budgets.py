"""How a budget of bytes becomes a number of blocks for each selection group, or for each layer's or head's list.

WindowKV gives earlier groups more than later ones, on a line (equations 5-7). Paper and code draw different
lines; each is a fraction f: the last group gets f times the mean per layer, the first 2 - f times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Literal, Protocol

import torch
from torch import Tensor

BudgetShape = Literal["uniform", "paper", "code", "linear"]

STEEPNESS = 14  # the paper's λ, the code's β
ROUNDING = 1e-9  # windows; what floating point may lose of a whole one


def last_share(shape: BudgetShape, group_size: int, top_fraction: float) -> float:
    """f of a shape, for selection groups of group_size layers.

    paper: b_top = b_total / (λ · H_g), spread over the group's layers, is 1/λ of the mean.
    code: the same without the division by the group's layers: γ/λ, flat at γ = λ, growing with depth beyond.
    linear: top_fraction itself, so that steepness and sharing are two choices; 0.5 to 0.6 is what was run.
    """
    if shape == "uniform":
        return 1.0
    if shape == "paper":
        return 1 / STEEPNESS
    return top_fraction if shape == "linear" else min(group_size / STEEPNESS, 2.0)


def group_shares(num_groups: int, last: float) -> tuple[float, ...]:
    """Tokens per layer of each group, first to last, as multiples of the mean: from 2 - last down to last."""
    if num_groups == 1:
        return (1.0,)
    step = (2 - 2 * last) / (num_groups - 1)
    return tuple(2 - last - step * group for group in range(num_groups))


class LayerShape(Protocol):
    def shares(self, num_layers: int, mean_tokens: float, num_tokens: int) -> tuple[float, ...]:
        """Tokens of each layer, first to last, relative to the others'.

        mean_tokens: what the budget allows per layer; num_tokens: the prompt's.
        """


@dataclass(frozen=True)
class Uniform:
    """Every layer the same."""

    def shares(self, num_layers: int, mean_tokens: float, num_tokens: int) -> tuple[float, ...]:
        return (1.0,) * num_layers


@dataclass(frozen=True)
class Claim:
    """What one selection group may ask for. share: its windows relative to the other groups'."""

    share: float
    window_bytes: int
    num_forced: int
    num_windows: int

    def windows_at(self, level: float) -> float:
        return float(min(max(level * self.share, self.num_forced), self.num_windows))


def grant(claims: Sequence[Claim], budget_bytes: int, *, redistribute: bool) -> list[int]:
    """Windows per claim: in proportion to the shares, never under the forced ones, within the budget.

    redistribute: what a group cannot use, having no more windows or by rounding down, goes to the others.
    """
    level = _level(claims, budget_bytes, redistribute=redistribute)
    exact = [claim.windows_at(level) for claim in claims]
    counts = [floor(windows + ROUNDING) for windows in exact]
    if redistribute:
        _hand_out_remainders(counts, exact, claims, budget_bytes)
    return counts


def _level(claims: Sequence[Claim], budget_bytes: int, *, redistribute: bool) -> float:
    """The highest level, in windows per share, at which all claims together fit. What they take grows on straight lines
    between the levels at which a claim begins or ceases to grow."""
    growing = [claim for claim in claims if claim.share > 0]
    planned = budget_bytes / max(sum(claim.share * claim.window_bytes for claim in claims), 1e-12)
    most = max((claim.num_windows / claim.share for claim in growing), default=0.0)
    high = most if redistribute else max(planned, 0.0)
    bounds = {bound / claim.share for claim in growing for bound in (claim.num_forced, claim.num_windows)}
    low, taken = 0.0, _bytes_at(claims, 0.0)
    for level in sorted({high, *(bound for bound in bounds if 0.0 < bound < high)}):
        if taken >= budget_bytes:
            return low
        further = _bytes_at(claims, level)
        if further > budget_bytes:
            return low + (level - low) * (budget_bytes - taken) / (further - taken)
        low, taken = level, further
    return high


def _bytes_at(claims: Sequence[Claim], level: float) -> float:
    spent = sum(claim.windows_at(level) * claim.window_bytes for claim in claims)
    return spent * (1 - ROUNDING)  # a budget that fits to the byte must not be lost to floating point


def _hand_out_remainders(
    counts: list[int], exact: Sequence[float], claims: Sequence[Claim], budget_bytes: int
) -> None:
    left = budget_bytes - sum(count * claim.window_bytes for count, claim in zip(counts, claims, strict=True))
    for group in sorted(range(len(claims)), key=lambda group: counts[group] - exact[group]):
        fits = claims[group].window_bytes <= left and counts[group] < claims[group].num_windows
        if fits:
            counts[group] += 1
            left -= claims[group].window_bytes


def contend(ranked: Tensor, total_blocks: int, *, block_tokens: int, least: int) -> list[int]:
    """Lists share total_blocks by what each further block would add: blocks per list.

    ranked: [lists, num_tokens], each list's scores in the order in which its tokens would be kept, descending behind
    the first least blocks, which every list gets. Of equals the earlier list's block goes first. With blocks of one
    token this is AdaKV's top-k over all heads of a layer (arXiv 2407.11550, algorithm 1).
    """
    num_lists, num_tokens = ranked.shape
    num_blocks = -(-num_tokens // block_tokens)
    least = min(least, num_blocks, total_blocks // num_lists)
    # A ragged last block has fewer tokens to add: scores begin at 0, so that absent ones add nothing.
    padded = torch.nn.functional.pad(
        (ranked - ranked.min()).double(), (0, num_blocks * block_tokens - num_tokens)
    )
    gains = padded.view(num_lists, num_blocks, block_tokens).sum(dim=2)
    gains[:, :least] = float("inf")
    winners = torch.sort(gains.t().flatten(), descending=True, stable=True).indices[:total_blocks] % num_lists
    counts: list[int] = torch.bincount(winners, minlength=num_lists).tolist()
    return counts
