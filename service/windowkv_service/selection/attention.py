"""The attention that each token of a prompt receives from its last tokens, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from windowkv_service.selection.base import Observation

MOST_LOGITS = 1 << 20  # fp32 numbers at once: 4 MiB, which a CPU keeps near; 64 MiB took 2.6 times as long


def observed_attention(observation: Observation, layer: int, num_queries: int) -> Tensor:
    """attention_received of one layer from its last num_queries queries, or all that were observed."""
    return attention_received(
        observation.queries[layer][:, -num_queries:],
        observation.keys(layer),
        scale=observation.scales[layer],
        softcap=observation.softcaps.get(layer),
    )


def attention_received(
    queries: Tensor, keys: Tensor, *, scale: float, softcap: float | None, weights: Tensor | None = None
) -> Tensor:
    """Per query head, summed over queries: fp32 [num_heads, n].

    keys: [n, num_kv_heads, head_dim]. queries: [num_heads, m, head_dim], of the last m of the n tokens; each sees the
    tokens up to its own. weights: [m], how much each query counts; None: all 1. The softmax is in fp32. Never more than
    MOST_LOGITS logits exist at once, or one query's.
    """
    num_heads, num_queries, _ = queries.shape
    num_tokens, num_kv_heads, _ = keys.shape
    received = torch.zeros(num_heads, num_tokens, dtype=torch.float32, device=keys.device)
    group = num_heads // num_kv_heads
    for head in range(num_kv_heads):
        heads, head_keys = slice(head * group, (head + 1) * group), keys[:, head].float()
        for rows in row_chunks(num_queries, group * num_tokens):
            start = num_tokens - num_queries + rows.start  # of the tokens: the chunk's first
            end = start + rows.stop - rows.start
            logits = attention_logits(queries[heads, rows], head_keys[:end], scale, softcap)
            shares = mask_future(logits, start).softmax(dim=-1)
            if weights is not None:
                shares = shares * weights[rows, None]
            received[heads, :end] += shares.sum(dim=1)
    return received


def attention_logits(queries: Tensor, keys: Tensor, scale: float, softcap: float | None) -> Tensor:
    """queries [..., m, head_dim], keys [n, head_dim] → fp32 [..., m, n], before the softmax."""
    logits = torch.matmul(queries.float() * scale, keys.float().t())
    return logits if softcap is None else torch.tanh(logits / softcap) * softcap


def mask_future(logits: Tensor, start: int) -> Tensor:
    """In place: row i of logits [..., m, n] sees the keys 0 … start + i only."""
    future = torch.ones(logits.shape[-2:], dtype=torch.bool, device=logits.device).triu(start + 1)
    return logits.masked_fill_(future, float("-inf"))


def per_kv_head(scores: Tensor, num_kv_heads: int) -> Tensor:
    """Mean over the query heads that read one KV head: [num_heads, n] → [num_kv_heads, n]."""
    return scores.view(num_kv_heads, -1, scores.shape[-1]).mean(dim=1)


def row_chunks(num_rows: int, logits_per_row: int) -> Iterator[slice]:
    """All rows in order, as few pieces as MOST_LOGITS allows."""
    size = max(1, MOST_LOGITS // max(1, logits_per_row))
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))
