"""Blocks → windows of a prompt's staging."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from windowkv_kernels.reference.gather_windows import window_tokens


def scatter_windows(
    blocks: Tensor,
    block_ids: Tensor,
    staging: Tensor,
    layers: Sequence[int],
    windows: Tensor,
    num_tokens: int,
) -> None:
    tokens = window_tokens(windows, blocks.shape[3])  # [W · ω]
    is_real = tokens < num_tokens
    tokens = tokens[is_real]
    for place, layer in enumerate(layers):
        pieces = blocks[:, place].index_select(0, block_ids)  # [W, 2, ω, Hkv, D]
        staging[layer].index_copy_(1, tokens, pieces.transpose(0, 1).flatten(1, 2)[:, is_real])
