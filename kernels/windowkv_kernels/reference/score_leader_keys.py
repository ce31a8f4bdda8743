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
    if isinstance(keys, QuantizedKeys):
        keys = dequantize_keys(keys, torch.float32)
    num_tokens, num_kv_heads, _ = keys.shape
    per_head = [
        token_scores(head_queries, keys[:, head], scale, softcap, is_causal=False)
        for head, head_queries in enumerate(queries.chunk(num_kv_heads))
    ]
    return window_scores(torch.cat(per_head), window_size, top_p, num_tokens, queries.shape[1])
