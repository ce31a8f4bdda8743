"""The copy between staging and blocks that gather_windows and scatter_windows share."""

from __future__ import annotations

from collections.abc import Sequence

import triton
import triton.language as tl
from torch import Tensor

from windowkv_kernels.ops._bits import same_bits
from windowkv_kernels.ops._launch import Launch, pad_to_power_of_two
from windowkv_kernels.ops._numbers import numbers_on
from windowkv_kernels.ops._parts import Part, tile_for


def plan(
    staging: Tensor,
    layers: Sequence[int],
    windows: Tensor,
    num_tokens: int,
    blocks: Tensor,
    block_ids: Tensor,
    part: Part,
    *,
    is_gather: bool,
) -> Launch:
    _, num_layers, _, window_size, num_kv_heads, head_dim = blocks.shape
    token_size = num_kv_heads * head_dim
    tile = tile_for("move_windows", part)
    piece = min(tile["PIECE"], pad_to_power_of_two(window_size * token_size))
    return Launch(
        _move_windows,
        (windows.shape[0] * num_layers * 2, triton.cdiv(window_size * token_size, piece)),
        {
            "staging": same_bits(staging),
            "blocks": same_bits(blocks),
            "layers": numbers_on(staging.device, layers),
            "windows": windows.contiguous(),
            "block_ids": block_ids.contiguous(),
            "num_tokens": num_tokens,
            "layer_stride": staging.stride(0),
            "half_stride": staging.stride(1),
            "NUM_LAYERS": num_layers,
            "WINDOW": window_size,
            "TOKEN_SIZE": token_size,
            "PIECE": piece,
            "IS_GATHER": is_gather,
        },
        tile.num_warps,
        tile.num_stages,
    )


@triton.jit(do_not_specialize_on_alignment=["windows", "block_ids"], do_not_specialize=["num_tokens"])
def _move_windows(
    staging,  # [num_layers, 2, capacity, Hkv · D]
    blocks,  # [N, γ, 2, ω, Hkv · D]
    layers,  # [γ]
    windows,  # [W]
    block_ids,  # [W]
    num_tokens,
    layer_stride,
    half_stride,
    NUM_LAYERS: tl.constexpr,
    WINDOW: tl.constexpr,
    TOKEN_SIZE: tl.constexpr,
    PIECE: tl.constexpr,
    IS_GATHER: tl.constexpr,
):
    """One program per piece of a window's keys or values in one layer, which lie together on both sides."""
    strip = tl.program_id(0)  # (window, place, half)
    number, place, half = strip // (2 * NUM_LAYERS), strip // 2 % NUM_LAYERS, strip % 2
    window, block_id = tl.load(windows + number), tl.load(block_ids + number)
    inside = tl.program_id(1) * PIECE + tl.arange(0, PIECE)
    is_inside = inside < WINDOW * TOKEN_SIZE
    is_real = is_inside & (inside < (num_tokens - window * WINDOW) * TOKEN_SIZE)
    token = window * WINDOW * TOKEN_SIZE + inside
    staged = staging + tl.load(layers + place) * layer_stride + half * half_stride + token
    stored = blocks + ((block_id * NUM_LAYERS + place) * 2 + half) * (WINDOW * TOKEN_SIZE) + inside
    if IS_GATHER:  # slots past the prompt become zero
        tl.store(stored, tl.load(staged, mask=is_real, other=0), mask=is_inside)
    else:
        tl.store(staged, tl.load(stored, mask=is_real, other=0), mask=is_real)
