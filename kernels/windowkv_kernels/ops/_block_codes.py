"""The arithmetic of block codecs, on tiles of which one axis is a group: extents, scales, codes.

Everything that is stored is made of integers here, bit for bit as on any GPU: scales are the upper halves of floats
(bf16), rounded outwards, and e4m3 is assembled by hand, because GPUs before compute capability 8.9 cannot convert.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from windowkv_kernels.formats import QuantizedBlocks
from windowkv_kernels.ops._launch import pad_to_power_of_two
from windowkv_kernels.ops._parts import Tile


def block_arguments(quantized: QuantizedBlocks, tile: Tile) -> dict[str, Any]:
    """What kernels over quantized blocks are launched with. Tiles are [ω, heads, 2, D / 2]."""
    num_layers, _, window_size, num_kv_heads, head_dim = quantized.block_shape
    per_head = pad_to_power_of_two(window_size) * pad_to_power_of_two(head_dim)
    num_codes = num_layers * 2 * window_size * num_kv_heads * head_dim * quantized.bits // 8
    num_key_scales = num_layers * quantized.num_scales * num_kv_heads * head_dim
    return {
        "packed": quantized.packed,
        "scales": quantized.packed.view(torch.int16),
        "CODEC": quantized.codec,
        "NUM_SCALES": quantized.num_scales,
        "BLOCK_BYTES": quantized.packed.shape[1],
        "KEY_SCALES": num_codes // 2,  # where they begin, counted in scales
        "VALUE_SCALES": num_codes // 2 + num_key_scales,
        "NUM_LAYERS": num_layers,
        "WINDOW": window_size,
        "WINDOW_PAD": pad_to_power_of_two(window_size),
        "NUM_HEADS": num_kv_heads,
        "HEADS": max(1, min(pad_to_power_of_two(num_kv_heads), tile["NUMBERS"] // per_head)),
        "HALF": head_dim // 2,
        "HALF_PAD": pad_to_power_of_two(head_dim // 2),
    }


@triton.jit
def round_down(numbers):
    """To the next bf16 at or below, as fp32: cutting bits off moves towards zero, a carry before it away from zero."""
    bits = numbers.to(tl.int32, bitcast=True)
    return (tl.where(bits < 0, bits + 0xFFFF, bits) & -65536).to(tl.float32, bitcast=True)


@triton.jit
def scales_of(numbers, is_number, axis: tl.constexpr, CODEC: tl.constexpr):
    """(low, step) of the groups along axis, which is kept; numbers are 0 where there are none. Only int4 has a low; the
    others stand around zero. A group with a number that is not finite has a step of NaN."""
    # As integers the magnitudes of floats keep their order, and infinity and NaN come above all.
    magnitudes = numbers.to(tl.int32, bitcast=True) & 0x7FFFFFFF
    largest = tl.max(magnitudes, axis, keep_dims=True)
    extent = largest.to(tl.float32, bitcast=True)
    if CODEC == "int4":
        low = round_down(tl.min(tl.where(is_number, numbers, float("inf")), axis, keep_dims=True))
        extent = tl.max(tl.where(is_number, numbers, float("-inf")), axis, keep_dims=True) - low
        step = -round_down(tl.div_rn(-extent, 15.0))
    else:
        low = tl.zeros_like(extent)
        levels: tl.constexpr = 127.0 if CODEC == "int8" else 448.0
        step = -round_down(tl.div_rn(-extent, levels))
    return low, tl.where(largest < 0x7F800000, step, float("nan"))


@triton.jit
def codes_of(numbers, low, step, CODEC: tl.constexpr):
    """int32 0 … 255, or 0 … 15: the code of each number. Steps were rounded up, so that no code is too large."""
    inverse = 1.0 / tl.where(step > 0.0, step, 1.0)  # all that a step of 0 divides are 0
    if CODEC == "int4":
        codes = round_to_integer((numbers - low) * inverse) & 15
    elif CODEC == "int8":
        codes = round_to_integer(numbers * inverse) & 255
    else:
        magnitude = tl.abs(numbers * inverse)
        bits = magnitude.to(tl.int32, bitcast=True)
        # Round to three bits of mantissa, ties to even; e4m3's exponent is fp32's less 120.
        normal = ((bits + 0x7FFFF + ((bits >> 20) & 1)) >> 20) - (120 << 3)
        subnormal = round_to_integer(magnitude * 512.0) & 15  # below 2^-6 steps are 2^-9
        codes = tl.where(magnitude < 0.015625, subnormal, normal) & 127
        codes |= (numbers.to(tl.int32, bitcast=True) >> 24) & 128
    return codes


@triton.jit
def round_to_integer(numbers):
    """In the low bits of the result, ties to even, for magnitudes below 2^22: adding 1.5 · 2^23 leaves no room for a
    fraction."""
    return (numbers + 12582912.0).to(tl.int32, bitcast=True)


@triton.jit
def numbers_of(codes, low, step, CODEC: tl.constexpr):
    """The inverse of codes_of, up to rounding."""
    if CODEC == "int4":
        numbers = low + step * codes.to(tl.float32)
    elif CODEC == "int8":
        numbers = step * ((codes << 24) >> 24).to(tl.float32)
    else:
        fraction = codes & 127
        normal = ((fraction << 20) + (120 << 23)).to(tl.float32, bitcast=True)
        magnitude = tl.where(fraction < 8, fraction.to(tl.float32) * 0.001953125, normal)
        numbers = step * tl.where(codes >= 128, -magnitude, magnitude)
    return numbers
