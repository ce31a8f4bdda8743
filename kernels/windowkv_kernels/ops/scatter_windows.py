"""Blocks → windows of a prompt's staging, all layers of the group, keys and values, in one launch."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from windowkv_kernels.ops._move_windows import plan
from windowkv_kernels.ops._parts import part_of


def scatter_windows(
    blocks: Tensor,
    block_ids: Tensor,
    staging: Tensor,
    layers: Sequence[int],
    windows: Tensor,
    num_tokens: int,
) -> None:
    part = part_of(blocks.device)
    plan(staging, layers, windows, num_tokens, blocks, block_ids, part, is_gather=False).run()
