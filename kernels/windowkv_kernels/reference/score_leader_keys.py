"""Attention of a question's tokens → scores of the document's windows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from windowkv_kernels.formats import QuantizedKeys, WindowScores
from windowkv_kernels.reference.score_windows import token_scores, window_scores


def score_leader_keys(
    queries: Tensor,
    keys: Tensor | QuantizedKeys,
    window_size: int,
    scale: float,
    top_p: int | None,
    softcap: float | None,
) -> WindowScores:
    num_kv_heads = keys.num_kv_heads if isinstance(keys, QuantizedKeys) else keys.shape[1]
    # One key head at a time: neither [H, m, n] nor the index in fp32 exists as a whole.
    per_head = [
        token_scores(_products(head_queries.float() * scale, keys, head), softcap, is_causal=False)
        for head, head_queries in enumerate(queries.chunk(num_kv_heads))
    ]
    num_tokens = per_head[0].shape[1]
    return window_scores(torch.cat(per_head), window_size, top_p, num_tokens, queries.shape[1])


def _products(queries: Tensor, keys: Tensor | QuantizedKeys, head: int) -> Tensor:
    """Of fp32 queries [heads, m, D] with one key head's keys: [heads, m, n]."""
    if isinstance(keys, QuantizedKeys):
        rows = _with_codes(queries.flatten(0, 1), keys.head(head))
        return rows.view(*queries.shape[:2], keys.num_tokens)
    return torch.matmul(queries, keys[:, head].float().t())


def _with_codes(queries: Tensor, keys: QuantizedKeys) -> Tensor:
    """Products [r, n] of queries [r, D] with the keys of one head.

    q · (low + step · code) = q · low + (q · step) · code, so that the steps are multiplied into a few queries instead
    of into all keys.
    """
    num_groups = keys.low.shape[0]
    missing = num_groups * keys.group_tokens - keys.num_tokens
    codes = pad(keys.codes[:, 0], (0, 0, 0, missing)).view(num_groups, keys.group_tokens, -1)
    parts = (codes & 0xF, codes >> 4) if keys.bits == 4 else (codes,)
    stepped = (queries * keys.step).chunk(len(parts), dim=2)  # of [num_groups, r, D]
    products = torch.matmul(keys.low[:, 0], queries.t())[:, :, None]  # [num_groups, r, 1]
    for part, mine in zip(parts, stepped, strict=True):
        products = products + torch.bmm(mine, part.float().transpose(1, 2))
    return products.transpose(0, 1).flatten(1)[:, : keys.num_tokens]
