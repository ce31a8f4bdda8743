"""From a leader's queries to window scores, in more ways than the service knows."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

HeadRule = Literal["mean", "max", "peaked", "per_kv_head"]


def token_votes(
    queries: Tensor, keys: Tensor, scale: float, softcap: float | None, *, takes_most: bool = False
) -> Tensor:
    """Share of attention each token gets: queries [H, v, D] of the voters, keys [n, Hkv, D] fp32 → [H, n].

    The mean over voters; takes_most: what the voter gives who gives most.
    """
    num_heads, num_voters, head_dim = queries.shape
    packed = queries.float().reshape(keys.shape[1], -1, head_dim) * scale  # [Hkv, H / Hkv · v, D]
    logits = packed @ keys.permute(1, 2, 0)
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    shares = logits.softmax(-1).view(num_heads, num_voters, -1)
    return shares.amax(1) if takes_most else shares.mean(1)


def combine_heads(said: Tensor, votes: Tensor, rule: HeadRule, num_kv_heads: int) -> Tensor:
    """What every head says of tokens or windows [H, x] → [1, x], or [Hkv, x] where each KV head has a list of its own.

    peaked: a head weighs as much as its votes [H, n] are concentrated: Σ p², the inverse of how many tokens it sees.
    """
    if rule == "mean":
        return said.mean(0, keepdim=True)
    if rule == "max":
        return said.amax(0, keepdim=True)
    if rule == "per_kv_head":
        return said.view(num_kv_heads, -1, said.shape[1]).mean(1)
    weights = peakedness(votes)
    return (weights[:, None] * said).sum(0, keepdim=True) / weights.sum()


def peakedness(votes: Tensor) -> Tensor:
    """Σ p² of distributions [H, n] → [H]."""
    return (votes * votes).sum(-1)


def by_window(votes: Tensor, window_size: int) -> Tensor:
    """[..., n] → [..., num_windows, window_size], zero behind the last token."""
    padded = torch.nn.functional.pad(votes, (0, -votes.shape[-1] % window_size))
    return padded.view(*padded.shape[:-1], -1, window_size)


def window_scores(votes: Tensor, window_size: int, top_p: int | None, *, adds_top: bool) -> Tensor:
    """[..., n] → [..., num_windows]: the mean over a window's tokens, or over its top_p largest.

    adds_top: the largest is added to the mean once more.
    """
    windows = by_window(votes, window_size)
    lengths = by_window(torch.ones(votes.shape[-1]), window_size).sum(-1)
    largest = windows if top_p is None else windows.topk(min(top_p, window_size), dim=-1).values
    score = largest.sum(-1) / lengths.clamp(max=largest.shape[-1])
    return score + windows.amax(-1) if adds_top else score
