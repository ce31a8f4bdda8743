"""Attention of a few new tokens over block tables: split over the slots (flash-decoding), then merged."""

from __future__ import annotations

import torch
from torch import Tensor

from windowkv_kernels.ops._attend_tables import Terms, cut, plan_attend
from windowkv_kernels.ops._launch import Launch, run_all
from windowkv_kernels.ops._merge_splits import Partials, plan_merge
from windowkv_kernels.ops._parts import Part, part_of


def decode_attention(
    queries: Tensor,
    blocks: Tensor,
    place: int,
    block_table: Tensor,
    key_positions: Tensor,
    query_positions: Tensor,
    num_filled: Tensor | None,
    scale: float,
    sliding_window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
    terms = Terms(scale, sliding_window, softcap)
    part = part_of(queries.device)
    tables = (block_table, key_positions, query_positions, num_filled)
    run_all(plan(queries, blocks, place, *tables, terms, sinks, out, part))
    return out


def plan(
    queries: Tensor,
    blocks: Tensor,
    place: int,
    block_table: Tensor,
    key_positions: Tensor,
    query_positions: Tensor,
    num_filled: Tensor | None,
    terms: Terms,
    sinks: Tensor | None,
    out: Tensor,
    part: Part,
) -> list[Launch]:
    """Two launches: the pieces, and their merge. Nothing depends on the tensors' values: a CUDA graph may hold it."""
    batch, num_heads, length, head_dim = queries.shape
    pieces = cut(queries, blocks, batch, key_positions.shape[1], part)
    partials = Partials.empty(batch * num_heads * length, pieces.num_splits, head_dim, queries.device)
    attend = plan_attend(
        queries,
        blocks,
        place,
        block_table,
        key_positions,
        query_positions,
        num_filled,
        terms,
        pieces,
        partials,
        first_split=0,
    )
    return [attend, plan_merge(partials, sinks, out)]
