"""Windows of a prefilled prompt → blocks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def gather_windows(
    staging: Tensor,
    layers: Sequence[int],
    windows: Tensor,
    num_tokens: int,
    blocks: Tensor,
    block_ids: Tensor,
) -> None:
    window_size = blocks.shape[3]
    tokens = window_tokens(windows, window_size)  # [W · ω]
    is_past = tokens >= num_tokens
    tokens = tokens.masked_fill(is_past, 0)
    for place, layer in enumerate(layers):
        pieces = staging[layer].index_select(1, tokens)  # [2, W · ω, Hkv, D]
        pieces[:, is_past] = 0  # written, not multiplied: staging past the prompt may hold anything
        pieces = pieces.view(2, -1, *blocks.shape[3:]).transpose(0, 1)  # [W, 2, ω, Hkv, D]
        blocks[:, place].index_copy_(0, block_ids, pieces)


def window_tokens(windows: Tensor, window_size: int) -> Tensor:
    """The token indices of windows [W], one window after the other: [W · ω]."""
    offsets = torch.arange(window_size, device=windows.device)
    return (windows[:, None] * window_size + offsets).flatten()
