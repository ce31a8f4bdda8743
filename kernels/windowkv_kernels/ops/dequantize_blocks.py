"""Quantized blocks → blocks."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from windowkv_kernels.formats import QuantizedBlocks
from windowkv_kernels.ops._block_codes import block_arguments, numbers_of
from windowkv_kernels.ops._launch import Launch
from windowkv_kernels.ops._parts import Part, part_of, tile_for


def dequantize_blocks(quantized: QuantizedBlocks, blocks: Tensor, block_ids: Tensor) -> None:
    plan(quantized, blocks, block_ids, part_of(blocks.device)).run()


def plan(quantized: QuantizedBlocks, blocks: Tensor, block_ids: Tensor, part: Part) -> Launch:
    tile = tile_for("quantize_blocks", part)
    arguments = block_arguments(quantized, tile) | {"blocks": blocks, "block_ids": block_ids.contiguous()}
    grid = (block_ids.shape[0] * blocks.shape[1], triton.cdiv(arguments["NUM_HEADS"], arguments["HEADS"]), 2)
    return Launch(_dequantize_blocks, grid, arguments, tile.num_warps, tile.num_stages)


@triton.jit(do_not_specialize_on_alignment=["block_ids"])
def _dequantize_blocks(
    packed,  # uint8 [W, BLOCK_BYTES]
    scales,  # the same memory as int16
    blocks,  # [N, γ, 2, ω, Hkv, D]
    block_ids,  # [W]
    CODEC: tl.constexpr,
    NUM_SCALES: tl.constexpr,
    BLOCK_BYTES: tl.constexpr,
    KEY_SCALES: tl.constexpr,
    VALUE_SCALES: tl.constexpr,
    NUM_LAYERS: tl.constexpr,
    WINDOW: tl.constexpr,
    WINDOW_PAD: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PAD: tl.constexpr,
):
    """One program per block, layer, keys (axis 2 is 0) or values (1) and some heads: read once, written once."""
    half = tl.program_id(2)
    number, place = (tl.program_id(0) // NUM_LAYERS).to(tl.int64), tl.program_id(0) % NUM_LAYERS
    tokens = tl.arange(0, WINDOW_PAD)[:, None, None, None]
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[None, :, None, None]
    sides = tl.arange(0, 2)[None, None, :, None]
    lanes = tl.arange(0, HALF_PAD)[None, None, None, :]
    is_head, is_lane = heads < NUM_HEADS, lanes < HALF
    is_number = (tokens < WINDOW) & is_head & (sides < 2) & is_lane
    rows = ((place * 2 + half) * WINDOW + tokens) * NUM_HEADS + heads  # of a block's tokens and heads
    channels = sides * HALF + lanes
    source = packed + number * BLOCK_BYTES
    if CODEC == "int4":  # both halves of the channels read the same bytes, and each its half of them
        codes = tl.load(source + rows * HALF + lanes + sides * 0, mask=is_number, other=0).to(tl.int32)
        codes = (codes >> (sides * 4)) & 15
    else:
        codes = tl.load(source + rows * (2 * HALF) + channels, mask=is_number, other=0).to(tl.int32)

    block = blocks + tl.load(block_ids + number) * (NUM_LAYERS * 2 * WINDOW * NUM_HEADS * 2 * HALF)
    target = block + rows * (2 * HALF) + channels
    own_scales = scales + number * (BLOCK_BYTES // 2)
    if half == 0:
        key_scales = (
            own_scales + KEY_SCALES + (place * NUM_SCALES * NUM_HEADS + heads) * (2 * HALF) + channels
        )
        is_there = is_head & (sides < 2) & is_lane
        low, step = _load_scales(key_scales, NUM_HEADS * 2 * HALF, is_there, CODEC)
        numbers = numbers_of(codes, low, step, CODEC)
    else:  # other names: these have other shapes
        row = (place * NUM_SCALES * WINDOW + tokens) * NUM_HEADS + heads
        is_token = (tokens < WINDOW) & is_head & (sides < 2)
        value_scales = own_scales + VALUE_SCALES + row * 2 + sides
        value_low, value_step = _load_scales(value_scales, WINDOW * NUM_HEADS * 2, is_token, CODEC)
        numbers = numbers_of(codes, value_low, value_step, CODEC)
    tl.store(target, numbers.to(blocks.dtype.element_ty), mask=is_number)


@triton.jit
def _load_scales(source, stride, mask, CODEC: tl.constexpr):
    """(low, step) from the upper halves of their floats; what the codec does not use is the step too."""
    low = (tl.load(source, mask=mask, other=0).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    if CODEC == "int4":
        source += stride
        step = (tl.load(source, mask=mask, other=0).to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        step = low
    return low, step
