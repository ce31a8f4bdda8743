"""Tiles of keys, plain or quantized, in two halves of their channels.

Halves, because at 4 bits a byte holds channel c and channel c + D/2: unpacked they are two tiles that lie as they come,
and the product of two halves is a sum of two products. The plain formats do the same, so that there is one kernel.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from windowkv_kernels.formats import QuantizedKeys
from windowkv_kernels.ops._launch import pad_to_power_of_two

PLAIN = 0  # in place of bits


def key_arguments(keys: Tensor | QuantizedKeys) -> dict[str, Any]:
    """What kernels that load key tiles are launched with."""
    low: Tensor | None = None
    step: Tensor | None = None
    if isinstance(keys, QuantizedKeys):
        codes, low, step = keys.codes, keys.low.contiguous(), keys.step.contiguous()
        head_dim, bits, group_tokens = keys.head_dim, keys.bits, keys.group_tokens
    else:
        codes, head_dim, bits, group_tokens = keys, keys.shape[2], PLAIN, 1
    if codes.stride(2) != 1:
        codes = codes.contiguous()
    return {
        "keys": codes,
        "key_token_stride": codes.stride(0),
        "key_head_stride": codes.stride(1),
        "low": low,
        "step": step,
        "num_tokens": codes.shape[0],
        "NUM_KV_HEADS": codes.shape[1],
        "HEAD_DIM": head_dim,
        "HALF": triton.cdiv(head_dim, 2),
        "HALF_PAD": pad_to_power_of_two(triton.cdiv(head_dim, 2), at_least=16),  # a tensor core's least depth
        "BITS": bits,
        "GROUP_TOKENS": group_tokens,
    }


def computing_dtype(queries: Tensor, keys: Tensor | QuantizedKeys) -> torch.dtype:
    """What tiles are multiplied in: what the queries are, or holds both. Quantized keys take the queries'."""
    return torch.promote_types(queries.dtype, keys.dtype) if isinstance(keys, Tensor) else queries.dtype


@triton.jit
def load_key_halves(
    keys,  # [n, Hkv, D], or codes [n, Hkv, D · bits / 8]
    key_token_stride,
    key_head_stride,
    low,  # [groups, Hkv, D] fp32; None when plain
    step,
    first,  # of the tile: a tile within one group of tokens loads its scales once
    tokens,
    is_token,
    kv_head,
    dtype: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PAD: tl.constexpr,
    BITS: tl.constexpr,
    GROUP_TOKENS: tl.constexpr,
    IS_ONE_GROUP: tl.constexpr,
):
    """(channels 0 …, channels D/2 …) of some tokens, [tokens, HALF_PAD] each, zero where there are none."""
    half = tl.arange(0, HALF_PAD)[None, :]
    is_low, is_high = half < HALF, half < HEAD_DIM - HALF
    rows = keys + tokens.to(tl.int64)[:, None] * key_token_stride + kv_head * key_head_stride + half
    lower = tl.load(rows, mask=is_token[:, None] & is_low, other=0)
    if BITS == 4:
        upper = lower >> 4
        lower = lower & 15
    else:
        upper = tl.load(rows + HALF, mask=is_token[:, None] & is_high, other=0)
    if BITS > 0:
        if IS_ONE_GROUP:
            scales = (first // GROUP_TOKENS * NUM_KV_HEADS + kv_head) * HEAD_DIM + half
            is_scaled, is_scaled_high = is_low, is_high
        else:
            scales = (tokens[:, None] // GROUP_TOKENS * NUM_KV_HEADS + kv_head) * HEAD_DIM + half
            is_scaled, is_scaled_high = is_token[:, None] & is_low, is_token[:, None] & is_high
        lower = lower.to(tl.float32) * tl.load(step + scales, mask=is_scaled, other=0.0)
        lower += tl.load(low + scales, mask=is_scaled, other=0.0)
        upper = upper.to(tl.float32) * tl.load(step + scales + HALF, mask=is_scaled_high, other=0.0)
        upper += tl.load(low + scales + HALF, mask=is_scaled_high, other=0.0)
    return lower.to(dtype), upper.to(dtype)
