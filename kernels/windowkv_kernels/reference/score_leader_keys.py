"""Attention of a question's tokens → scores of the document's windows."""

from __future__ import annotations

import torch
from torch import Tensor

from windowkv_kernels.formats import QuantizedKeys, WindowScores
from windowkv_kernels.reference.quantize_keys import dequantize_keys
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
        token_scores(head_queries, head_keys(keys, head), scale, softcap, is_causal=False)
        for head, head_queries in enumerate(queries.chunk(num_kv_heads))
    ]
    num_tokens = per_head[0].shape[1]
    return window_scores(torch.cat(per_head), window_size, top_p, num_tokens, queries.shape[1])


def head_keys(keys: Tensor | QuantizedKeys, head: int) -> Tensor:
    """One key head's keys: [n, D]."""
    if isinstance(keys, QuantizedKeys):
        return dequantize_keys(keys.head(head), torch.float32)[:, 0]
    return keys[:, head]
