"""Attention over tables that begin alike, by giving each sequence the whole of its table."""

from __future__ import annotations

import torch
from torch import Tensor

from windowkv_kernels.reference.decode_attention import decode_attention


def shared_prefix_decode(
    queries: Tensor,
    blocks: Tensor,
    place: int,
    shared_table: Tensor,
    shared_positions: Tensor,
    block_table: Tensor,
    key_positions: Tensor,
    query_positions: Tensor,
    num_filled: Tensor | None,
    num_shared: Tensor | None,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    batch = queries.shape[0]
    if num_shared is not None:
        num_front = max(1, -(-int(num_shared) // blocks.shape[3]))
        shared_table, shared_positions = (
            shared_table[:num_front],
            shared_positions[: num_front * blocks.shape[3]],
        )
    table = torch.cat([shared_table.expand(batch, -1), block_table], dim=1)
    positions = torch.cat([shared_positions.expand(batch, -1), key_positions], dim=1)
    filled = None if num_filled is None else num_filled + shared_positions.shape[0]
    tables = (table, positions, query_positions, filled)
    return decode_attention(queries, blocks, place, *tables, scale, sliding_window, softcap, sinks)
