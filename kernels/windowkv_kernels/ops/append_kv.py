"""New tokens' keys and values → their slots."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from windowkv_kernels.ops._bits import same_bits
from windowkv_kernels.ops._launch import Launch, pad_to_power_of_two


def append_kv(blocks: Tensor, place: int, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    plan(blocks, place, keys, values, slots).run()


def plan(blocks: Tensor, place: int, keys: Tensor, values: Tensor, slots: Tensor) -> Launch:
    batch, length, num_kv_heads, head_dim = keys.shape
    _, num_layers, _, window_size, _, _ = blocks.shape
    keys, values = (tensor if tensor.stride(3) == 1 else tensor.contiguous() for tensor in (keys, values))
    return Launch(
        _append_kv,
        (batch * length, 2),
        {
            "keys": same_bits(keys),
            "key_batch_stride": keys.stride(0),
            "key_token_stride": keys.stride(1),
            "key_head_stride": keys.stride(2),
            "values": same_bits(values),
            "value_batch_stride": values.stride(0),
            "value_token_stride": values.stride(1),
            "value_head_stride": values.stride(2),
            "slots": slots,
            "slot_batch_stride": slots.stride(0),
            "slot_token_stride": slots.stride(1),
            "blocks": same_bits(blocks),
            "place": place,
            "length": length,
            "NUM_LAYERS": num_layers,
            "WINDOW": window_size,
            "NUM_HEADS": num_kv_heads,
            "HEAD_DIM": head_dim,
            "HEADS_PAD": pad_to_power_of_two(num_kv_heads),
            "DIM_PAD": pad_to_power_of_two(head_dim),
        },
    )


@triton.jit(
    do_not_specialize_on_alignment=["slots"],  # a view into the tail's
    do_not_specialize=["place", "length", "slot_batch_stride", "slot_token_stride"],
)
def _append_kv(
    keys,  # [B, m, Hkv, D]
    key_batch_stride,
    key_token_stride,
    key_head_stride,
    values,  # [B, m, Hkv, D]
    value_batch_stride,
    value_token_stride,
    value_head_stride,
    slots,  # [B, m]
    slot_batch_stride,
    slot_token_stride,
    blocks,  # [N, γ, 2, ω, Hkv, D]
    place,
    length,
    NUM_LAYERS: tl.constexpr,
    WINDOW: tl.constexpr,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HEADS_PAD: tl.constexpr,
    DIM_PAD: tl.constexpr,
):
    """One program per token, for its keys (axis 1 is 0) or its values (1)."""
    batch, token = tl.program_id(0) // length, tl.program_id(0) % length
    half = tl.program_id(1)
    slot = tl.load(slots + batch * slot_batch_stride + token * slot_token_stride)
    if slot < 0:
        return
    heads, dims = tl.arange(0, HEADS_PAD)[:, None], tl.arange(0, DIM_PAD)[None, :]
    is_inside = (heads < NUM_HEADS) & (dims < HEAD_DIM)
    if half == 0:
        source = keys + batch * key_batch_stride + token * key_token_stride + heads * key_head_stride + dims
    else:
        source = values + batch * value_batch_stride + token * value_token_stride
        source += heads * value_head_stride + dims
    row = ((slot // WINDOW * NUM_LAYERS + place) * 2 + half) * WINDOW + slot % WINDOW
    target = blocks + (row * NUM_HEADS + heads) * HEAD_DIM + dims
    tl.store(target, tl.load(source, mask=is_inside), mask=is_inside)
