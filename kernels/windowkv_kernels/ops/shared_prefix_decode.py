"""Attention over tables that begin alike: the common part once for all sequences, then each its own, then merged."""

from __future__ import annotations

import torch
from torch import Tensor

from windowkv_kernels.ops._attend_tables import Terms, cut, plan_attend
from windowkv_kernels.ops._launch import Launch, run_all
from windowkv_kernels.ops._merge_splits import Partials, plan_merge
from windowkv_kernels.ops._parts import Part, part_of


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
    out = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
    shared, own = (shared_table[None], shared_positions[None]), (block_table, key_positions)
    filled = (num_shared, num_filled)
    terms = Terms(scale, sliding_window, softcap)
    part = part_of(queries.device)
    run_all(plan(queries, blocks, place, shared, own, query_positions, filled, terms, sinks, out, part))
    return out


def plan(
    queries: Tensor,
    blocks: Tensor,
    place: int,
    shared: tuple[Tensor, Tensor],
    own: tuple[Tensor, Tensor],
    query_positions: Tensor,
    filled: tuple[Tensor | None, Tensor | None],
    terms: Terms,
    sinks: Tensor | None,
    out: Tensor,
    part: Part,
) -> list[Launch]:
    """Three launches. shared, own: a table and its key positions; the shared ones with a leading axis of one.
    filled: how many slots of these may be visible.

    In the shared part the rows of all sequences stand together, G · m of each: a matrix product with a real M side.
    """
    batch, num_heads, length, head_dim = queries.shape
    pieces = [
        cut(queries, blocks, positions.shape[0], positions.shape[1], part) for _, positions in (shared, own)
    ]
    num_splits = sum(piece.num_splits for piece in pieces)
    partials = Partials.empty(batch * num_heads * length, num_splits, head_dim, queries.device)
    attend = [
        plan_attend(
            queries, blocks, place, *tables, query_positions, used, terms, piece, partials, first_split=first
        )
        for tables, used, piece, first in zip(
            (shared, own), filled, pieces, (0, pieces[0].num_splits), strict=True
        )
    ]
    return [*attend, plan_merge(partials, sinks, out)]
