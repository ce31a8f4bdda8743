"""Blocks → windows of a prompt's staging, all layers of the group, keys and values, in one launch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from windowkv_kernels.ops import _move_windows


def scatter_windows(
    blocks: Tensor,
    block_ids: Tensor,
    staging: Tensor,
    layers: Sequence[int],
    windows: Tensor,
    num_tokens: int,
) -> None:
    _move_windows.plan(staging, layers, windows, num_tokens, blocks, block_ids, is_gather=False).run()
