"""Blocks → 8 or 4 bits per number: keys per channel over a block's tokens, values per token and half head."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from windowkv_kernels.formats import BlockCodec, QuantizedBlocks
from windowkv_kernels.ops._block_codes import block_arguments, codes_of, scales_of
from windowkv_kernels.ops._launch import Launch
from windowkv_kernels.ops._parts import Part, part_of, tile_for


def quantize_blocks(blocks: Tensor, block_ids: Tensor, codec: BlockCodec) -> QuantizedBlocks:
    launch, quantized = plan(blocks, block_ids, codec, part_of(blocks.device))
    launch.run()
    return quantized


def plan(blocks: Tensor, block_ids: Tensor, codec: BlockCodec, part: Part) -> tuple[Launch, QuantizedBlocks]:
    quantized = QuantizedBlocks.empty(block_ids.shape[0], tuple(blocks.shape[1:]), codec, blocks.device)
    tile = tile_for("quantize_blocks", part)
    arguments = block_arguments(quantized, tile) | {"blocks": blocks, "block_ids": block_ids.contiguous()}
    grid = (block_ids.shape[0] * blocks.shape[1], triton.cdiv(arguments["NUM_HEADS"], arguments["HEADS"]), 2)
    return Launch(_quantize_blocks, grid, arguments, tile.num_warps, tile.num_stages), quantized


@triton.jit(do_not_specialize_on_alignment=["block_ids"])
def _quantize_blocks(
    blocks,  # [N, γ, 2, ω, Hkv, D]
    block_ids,  # [W]
    packed,  # uint8 [W, BLOCK_BYTES]
    scales,  # the same memory as int16
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
    block = blocks + tl.load(block_ids + number) * (NUM_LAYERS * 2 * WINDOW * NUM_HEADS * 2 * HALF)
    numbers = tl.load(block + rows * (2 * HALF) + channels, mask=is_number, other=0.0).to(tl.float32)

    own_scales = scales + number * (BLOCK_BYTES // 2)
    if half == 0:
        low, step = scales_of(numbers, is_number, 0, CODEC)
        codes = codes_of(numbers, low, step, CODEC)
        target = own_scales + KEY_SCALES + (place * NUM_SCALES * NUM_HEADS + heads) * (2 * HALF) + channels
        _store_scales(target, NUM_HEADS * 2 * HALF, low, step, is_head & (sides < 2) & is_lane, CODEC)
    else:  # other names: these have other shapes
        value_low, value_step = scales_of(numbers, is_number, 3, CODEC)
        codes = codes_of(numbers, value_low, value_step, CODEC)
        row = (place * NUM_SCALES * WINDOW + tokens) * NUM_HEADS + heads
        value_target = own_scales + VALUE_SCALES + row * 2 + sides
        is_stored = (tokens < WINDOW) & is_head & (sides < 2)
        _store_scales(value_target, WINDOW * NUM_HEADS * 2, value_low, value_step, is_stored, CODEC)

    if CODEC == "int4":
        codes = tl.sum(codes << (sides * 4), 2, keep_dims=True)
        codes_at = packed + number * BLOCK_BYTES + rows * HALF + lanes
        tl.store(codes_at, codes.to(tl.uint8), mask=(tokens < WINDOW) & is_head & is_lane)
    else:
        codes_at = packed + number * BLOCK_BYTES + rows * (2 * HALF) + channels
        tl.store(codes_at, codes.to(tl.uint8), mask=is_number)


@triton.jit
def _store_scales(target, stride, low, step, mask, CODEC: tl.constexpr):
    """The upper halves of the floats, low before step where the codec has it."""
    if CODEC == "int4":
        tl.store(target, (low.to(tl.int32, bitcast=True) >> 16).to(tl.int16), mask=mask)
        target += stride
    tl.store(target, (step.to(tl.int32, bitcast=True) >> 16).to(tl.int16), mask=mask)
