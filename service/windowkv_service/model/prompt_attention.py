"""Attention of a chunk of a prompt over all of the prompt up to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention


@dataclass(frozen=True)
class Terms:
    """What a layer's attention is computed with; sinks is [num_heads] or None."""

    scale: float
    sliding_window: int | None
    softcap: float | None
    sinks: Tensor | None


class Attended(NamedTuple):
    """output: [1, H, m, D]. lse: [1, H, m] fp32, the log-sum-exp of each query's scaled logits, where the kernel that
    ran has it."""

    output: Tensor
    lse: Tensor | None


def prompt_attention(
    queries: Tensor, keys: Tensor, values: Tensor, terms: Terms, visible: Callable[[], Tensor]
) -> Attended:
    """queries [1, H, m, D] of the last m of n positions, keys and values [1, Hkv, n, D]; visible gives [m, n], what
    causality and the sliding window leave.

    With a mask and grouped heads torch has nothing on a GPU but products written out, of [H, m, n] numbers. So there
    plain causal attention goes to the fused kernels, which know it without a mask, and what slides is packed.
    """
    if not queries.is_cuda or terms.softcap is not None or terms.sinks is not None:
        return Attended(masked_attention(queries, keys, values, visible(), terms), None)
    if terms.sliding_window is None:
        return _causal_attention(queries, keys, values, terms.scale)
    return Attended(packed_attention(queries, keys, values, visible(), terms.scale), None)


def _causal_attention(queries: Tensor, keys: Tensor, values: Tensor, scale: float) -> Attended:
    """On a GPU: FlashAttention itself where it takes the tensors, for torch's door keeps the log-sum-exps back."""
    # Not called causal here: torch would take it for the upper left and refuse chunks. The kernel means what we do.
    asked = SDPAParams(queries, keys, values, None, 0.0, False, True)
    if queries.shape[3] % 8 == 0 and can_use_flash_attention(asked):
        output, lse, *_ = torch.ops.aten._scaled_dot_product_flash_attention(
            queries, keys, values, 0.0, True, False, scale=scale
        )
        return Attended(output, lse)
    causal = causal_lower_right(queries.shape[2], keys.shape[2])
    output = scaled_dot_product_attention(
        queries, keys, values, attn_mask=causal, scale=scale, enable_gqa=True
    )
    return Attended(output, None)


def visible_keys(num_queries: int, num_keys: int, sliding_window: int | None, device: torch.device) -> Tensor:
    """[num_queries, num_keys]: what the last queries see of as many positions."""
    query_positions = torch.arange(num_keys - num_queries, num_keys, device=device)[:, None]
    key_positions = torch.arange(num_keys, device=device)[None, :]
    visible = key_positions <= query_positions
    if sliding_window is not None:
        visible &= key_positions > query_positions - sliding_window
    return visible


def packed_attention(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor, scale: float) -> Tensor:
    """The query heads of one key head as rows of one product: a mask and no grouped heads, which fused kernels take."""
    batch, num_heads, num_queries, head_dim = queries.shape
    packed = queries.reshape(batch, keys.shape[1], -1, head_dim)
    mask = visible.repeat(num_heads // keys.shape[1], 1)
    out = scaled_dot_product_attention(packed, keys, values, attn_mask=mask, scale=scale)
    return out.view(batch, num_heads, num_queries, head_dim)


def masked_attention(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor, terms: Terms) -> Tensor:
    """queries [B, H, m, D] over keys and values [B, Hkv, n, D]; visible [m, n]."""
    if terms.softcap is None and terms.sinks is None:
        return scaled_dot_product_attention(
            queries, keys, values, attn_mask=visible, scale=terms.scale, enable_gqa=True
        )
    return _plain_attention(queries, keys, values, visible, terms)


def _plain_attention(queries: Tensor, keys: Tensor, values: Tensor, visible: Tensor, terms: Terms) -> Tensor:
    """Attention with soft-capped scores or attention sinks, which the fused kernels do not know."""
    batch, num_heads, num_queries, head_dim = queries.shape
    packed = queries.view(batch, keys.shape[1], -1, num_queries, head_dim)
    scores = torch.einsum("bkgqd,bksd->bkgqs", packed, keys).float() * terms.scale
    if terms.softcap is not None:
        scores = torch.tanh(scores / terms.softcap) * terms.softcap
    scores = scores.masked_fill(~visible, float("-inf"))
    if terms.sinks is not None:
        sinks = terms.sinks.float().view(1, keys.shape[1], -1, 1, 1).expand(*scores.shape[:-1], 1)
        scores = torch.cat([scores, sinks], dim=-1)
    weights = scores.softmax(-1)[..., : keys.shape[2]].to(values.dtype)
    return torch.einsum("bkgqs,bksd->bkgqd", weights, values).reshape(batch, num_heads, num_queries, head_dim)
