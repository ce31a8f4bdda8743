"""Keys ↔ a few bits per number, per channel, over groups of consecutive tokens."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from windowkv_kernels.formats import QuantizedKeys
from windowkv_kernels.ops._block_codes import round_to_integer
from windowkv_kernels.ops._key_tiles import key_arguments, load_key_halves
from windowkv_kernels.ops._launch import Launch, pad_to_power_of_two
from windowkv_kernels.ops._parts import Part, part_of, tile_for


def quantize_keys(keys: Tensor, bits: int, group_tokens: int) -> QuantizedKeys:
    launch, quantized = plan_quantize(keys, bits, group_tokens, part_of(keys.device))
    launch.run()
    if not bool(torch.isfinite(quantized.step).all()):
        raise ValueError("keys must be finite")
    return quantized


def dequantize_keys(quantized: QuantizedKeys, dtype: torch.dtype) -> Tensor:
    launch, keys = plan_dequantize(quantized, dtype, part_of(quantized.codes.device))
    launch.run()
    return keys


def plan_quantize(keys: Tensor, bits: int, group_tokens: int, part: Part) -> tuple[Launch, QuantizedKeys]:
    num_tokens, num_kv_heads, head_dim = keys.shape
    num_groups = triton.cdiv(num_tokens, group_tokens)
    codes = torch.empty(num_tokens, num_kv_heads, head_dim * bits // 8, dtype=torch.uint8, device=keys.device)
    scales = torch.empty(2, num_groups, num_kv_heads, head_dim, dtype=torch.float32, device=keys.device)
    quantized = QuantizedKeys(codes, scales[0], scales[1], bits, group_tokens)
    tile = tile_for("quantize_keys", part)
    plain = key_arguments(keys)
    del plain["low"], plain["step"], plain["BITS"], plain["GROUP_TOKENS"]
    arguments = {
        "codes": codes,
        "low": quantized.low,
        "step": quantized.step,
        "BITS": bits,
        "GROUP_TOKENS": group_tokens,
        "TOKENS": min(tile["TOKENS"], pad_to_power_of_two(group_tokens)),
    }
    launch = Launch(
        _quantize_keys, (num_kv_heads, num_groups), plain | arguments, tile.num_warps, tile.num_stages
    )
    return launch, quantized


def plan_dequantize(quantized: QuantizedKeys, dtype: torch.dtype, part: Part) -> tuple[Launch, Tensor]:
    shape = (quantized.num_tokens, quantized.num_kv_heads, quantized.head_dim)
    keys = torch.empty(shape, dtype=dtype, device=quantized.codes.device)
    tile = tile_for("quantize_keys", part)
    arguments = key_arguments(quantized) | {"restored": keys, "TOKENS": tile["TOKENS"]}
    grid = (quantized.num_kv_heads, triton.cdiv(quantized.num_tokens, tile["TOKENS"]))
    return Launch(_dequantize_keys, grid, arguments, tile.num_warps, tile.num_stages), keys


@triton.jit(do_not_specialize=["num_tokens"])
def _quantize_keys(
    keys,  # [n, Hkv, D]
    key_token_stride,
    key_head_stride,
    num_tokens,
    codes,  # [n, Hkv, D · bits / 8]
    low,  # [groups, Hkv, D]
    step,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PAD: tl.constexpr,
    BITS: tl.constexpr,
    GROUP_TOKENS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    """One program per key head and group of tokens, read twice: for its range, then, from cache, for its codes.

    Tiles are [tokens, 2, D / 2]: at 4 bits the two halves of the channels share their bytes.
    """
    kv_head, group = tl.program_id(0), tl.program_id(1)
    which, half = tl.arange(0, 2)[None, :, None], tl.arange(0, HALF_PAD)[None, None, :]
    channels = which * HALF + half
    is_channel = (half < HALF) & (channels < HEAD_DIM)
    source = keys + kv_head * key_head_stride + channels
    begin = group * GROUP_TOKENS
    end = tl.minimum(begin + GROUP_TOKENS, num_tokens)

    lowest = tl.full([1, 2, HALF_PAD], float("inf"), tl.float32)
    highest = tl.full([1, 2, HALF_PAD], float("-inf"), tl.float32)
    is_spoilt = tl.zeros([1, 2, HALF_PAD], tl.int32)  # by NaN, which minima and maxima pass over, or infinity
    for first in range(begin, end, TOKENS):
        tokens = (first + tl.arange(0, TOKENS)).to(tl.int64)[:, None, None]
        is_token = tokens < end
        numbers = tl.load(source + tokens * key_token_stride, mask=is_token & is_channel, other=0.0).to(
            tl.float32
        )
        lowest = tl.minimum(lowest, tl.min(tl.where(is_token, numbers, float("inf")), 0, keep_dims=True))
        highest = tl.maximum(highest, tl.max(tl.where(is_token, numbers, float("-inf")), 0, keep_dims=True))
        is_spoilt |= tl.max(tl.where(tl.abs(numbers) < float("inf"), 0, 1), 0, keep_dims=True)
    LEVELS: tl.constexpr = 2**BITS - 1
    width = tl.where(is_spoilt == 1, float("nan"), (highest - lowest) / LEVELS)
    scales = (group * NUM_KV_HEADS + kv_head) * HEAD_DIM + channels
    tl.store(low + scales, lowest, mask=is_channel)
    tl.store(step + scales, width, mask=is_channel)

    inverse = 1.0 / tl.where(width > 0.0, width, 1.0)  # a constant channel: all codes are 0
    for first in range(begin, end, TOKENS):
        tokens = (first + tl.arange(0, TOKENS)).to(tl.int64)[:, None, None]
        is_token = tokens < end
        numbers = tl.load(source + tokens * key_token_stride, mask=is_token & is_channel, other=0.0).to(
            tl.float32
        )
        rounded = round_to_integer((numbers - lowest) * inverse) & LEVELS
        if BITS == 4:
            packed = tl.sum(rounded << (which * 4), 1, keep_dims=True)
            rows = (tokens * NUM_KV_HEADS + kv_head) * HALF + half
            tl.store(codes + rows, packed.to(tl.uint8), mask=is_token & (half < HALF))
        else:
            rows = (tokens * NUM_KV_HEADS + kv_head) * HEAD_DIM + channels
            tl.store(codes + rows, rounded.to(tl.uint8), mask=is_token & is_channel)


@triton.jit(do_not_specialize=["num_tokens"])
def _dequantize_keys(
    keys,  # codes [n, Hkv, D · bits / 8]
    key_token_stride,
    key_head_stride,
    low,
    step,
    num_tokens,
    restored,  # [n, Hkv, D]
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PAD: tl.constexpr,
    BITS: tl.constexpr,
    GROUP_TOKENS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    kv_head = tl.program_id(0)
    first = tl.program_id(1) * TOKENS
    tokens = first + tl.arange(0, TOKENS)
    lower, upper = load_key_halves(
        keys,
        key_token_stride,
        key_head_stride,
        low,
        step,
        first,
        tokens,
        tokens < num_tokens,
        kv_head,
        restored.dtype.element_ty,
        NUM_KV_HEADS,
        HEAD_DIM,
        HALF,
        HALF_PAD,
        BITS,
        GROUP_TOKENS,
        GROUP_TOKENS % TOKENS == 0,
    )
    half = tl.arange(0, HALF_PAD)[None, :]
    is_token = (tokens < num_tokens)[:, None]
    rows = restored + (tokens.to(tl.int64)[:, None] * NUM_KV_HEADS + kv_head) * HEAD_DIM + half
    tl.store(rows, lower, mask=is_token & (half < HALF))
    tl.store(rows + HALF, upper, mask=is_token & (half < HEAD_DIM - HALF))
