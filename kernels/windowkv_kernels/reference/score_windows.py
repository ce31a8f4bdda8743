"""Attention of a prompt's last tokens → window scores."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windowkv_kernels.formats import WindowScores


def score_windows(
    queries: Tensor,
    keys: Tensor,
    lse: Tensor | None,
    window_size: int,
    scale: float,
    top_p: int | None,
    softcap: float | None,
) -> WindowScores:
    num_tokens, num_kv_heads, _ = keys.shape
    num_observed = queries.shape[1]
    # One key head at a time, so that [H, α, n] never exists as a whole.
    per_head = [
        token_scores(
            torch.matmul(head_queries.float() * scale, keys[:, head].float().t()),
            softcap,
            is_causal=True,
            lse=head_lse,
        )  # [H / Hkv, n]
        for head, (head_queries, head_lse) in enumerate(
            zip(queries.chunk(num_kv_heads), _chunks(lse, num_kv_heads), strict=True)
        )
    ]
    return window_scores(torch.cat(per_head), window_size, top_p, num_tokens - num_observed, num_observed)


def _chunks(lse: Tensor | None, num_kv_heads: int) -> Sequence[Tensor | None]:
    return [None] * num_kv_heads if lse is None else lse.chunk(num_kv_heads)


def token_scores(
    logits: Tensor, softcap: float | None, *, is_causal: bool, lse: Tensor | None = None
) -> Tensor:
    """Attention each token receives from one key head's query heads, summed over queries: fp32 [heads, n].

    logits: scaled products of queries and keys, fp32 [heads, α, n]. is_causal: the queries are those of the last α of
    the n tokens. lse: [heads, α], where the softmax's denominators are known.
    """
    if softcap is not None:
        logits = torch.tanh(logits / softcap) * softcap
    if is_causal:
        num_observed = logits.shape[1]
        future = torch.ones(num_observed, num_observed, dtype=torch.bool, device=logits.device).triu(1)
        logits[:, :, -num_observed:].masked_fill_(future, float("-inf"))
    weights = logits.softmax(dim=-1) if lse is None else (logits - lse[:, :, None]).exp()
    return weights.sum(dim=1)


def window_scores(
    tokens: Tensor, window_size: int, top_p: int | None, num_review: int, num_queries: int
) -> WindowScores:
    """Token scores fp32 [H, n] → window scores; the first num_review tokens are review tokens."""
    num_heads, num_tokens = tokens.shape
    num_windows = -(-num_tokens // window_size)
    padding = num_windows * window_size - num_tokens
    mass = (
        torch.nn.functional.pad(tokens, (0, padding))
        .view(num_heads, num_windows, window_size)
        .sum(dim=(0, 2))
    )
    review = torch.nn.functional.pad(tokens[:, :num_review], (0, num_tokens + padding - num_review))
    starts = torch.arange(num_windows, device=tokens.device) * window_size
    counts = (num_review - starts).clamp(0, window_size)  # review tokens per window
    # Padding holds 0, the least a token score can be: it never displaces a real token from the top.
    per_window = review.view(num_heads, num_windows, window_size)
    if top_p is not None and top_p < window_size:
        per_window = per_window.topk(top_p, dim=-1).values
        counts = counts.clamp(max=top_p)
    score = per_window.sum(dim=(0, 2)) / (counts * num_heads)
    return WindowScores(score.masked_fill(counts == 0, float("-inf")), mass / (num_heads * num_queries))
