"""New tokens' keys and values → their slots."""

from __future__ import annotations

from torch import Tensor


def append_kv(blocks: Tensor, place: int, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    num_layers, window_size = blocks.shape[1], blocks.shape[3]
    slots, keys, values = slots.flatten(), keys.flatten(0, 1), values.flatten(0, 1)
    if slots.numel() and int(slots.min()) < 0:
        is_written = slots >= 0
        slots, keys, values = slots[is_written], keys[is_written], values[is_written]
    # Blocks as rows of one token each, [N · γ · 2 · ω, Hkv, D]: a block's rows are γ · 2 · ω apart, not ω.
    rows = (slots // window_size) * ((num_layers * 2 - 1) * window_size) + (slots + place * 2 * window_size)
    tokens = blocks.view(-1, *blocks.shape[4:])
    tokens.index_copy_(0, rows, keys)
    tokens.index_copy_(0, rows + window_size, values)
