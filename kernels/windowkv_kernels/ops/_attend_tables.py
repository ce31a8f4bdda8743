"""Attention of packed query rows over block tables, in pieces: what decode_attention and shared_prefix_decode run."""

from __future__ import annotations

from dataclasses import dataclass

import triton
import triton.language as tl
from torch import Tensor

from windowkv_kernels.ops._grids import count_splits
from windowkv_kernels.ops._launch import Launch, pad_to_power_of_two
from windowkv_kernels.ops._merge_splits import Partials
from windowkv_kernels.ops._parts import Part, Tile, tile_for

MAX_ROWS = 64  # of one program; more rows read the keys again, from L2
MIN_TOKENS_PER_SPLIT = 256


@dataclass(frozen=True)
class Terms:
    """What logits are made with."""

    scale: float
    sliding_window: int | None
    softcap: float | None


@dataclass(frozen=True)
class Cut:
    """How the rows and slots of tables become programs."""

    tile: Tile
    block_m: int
    num_row_tiles: int
    num_splits: int
    tokens_per_split: int


def cut(queries: Tensor, blocks: Tensor, num_tables: int, num_slots: int, part: Part) -> Cut:
    """Pieces of whole tiles, and as many as fill the GPU."""
    batch, num_heads, length, head_dim = queries.shape
    num_kv_heads = blocks.shape[4]
    rows_per_table = batch * num_heads * length // (num_kv_heads * num_tables)
    block_m = min(MAX_ROWS, pad_to_power_of_two(rows_per_table, at_least=16))  # 16: a tensor core's least
    num_row_tiles = triton.cdiv(rows_per_table, block_m)
    shape = {"head_dim": head_dim, "itemsize": blocks.element_size(), "rows": block_m}
    tile = tile_for("decode_attention", part, **shape)
    num_tiles = triton.cdiv(num_slots, tile["BLOCK_N"])
    most = max(1, min(num_tiles, num_slots // MIN_TOKENS_PER_SPLIT))
    resident = part.num_multiprocessors * tile["RESIDENT"]
    wanted = count_splits(num_kv_heads * num_tables * num_row_tiles, most, resident)
    tiles_per_split = triton.cdiv(num_tiles, wanted)
    num_splits = triton.cdiv(num_tiles, tiles_per_split)
    return Cut(tile, block_m, num_row_tiles, num_splits, tiles_per_split * tile["BLOCK_N"])


def plan_attend(
    queries: Tensor,
    blocks: Tensor,
    place: int,
    block_table: Tensor,
    key_positions: Tensor,
    query_positions: Tensor,
    num_filled: Tensor | None,
    terms: Terms,
    pieces: Cut,
    partials: Partials,
    first_split: int,
) -> Launch:
    """Fill partials first_split … of all rows. block_table: one per sequence, or a single one for them all. With
    num_filled, one number per table, the pieces are cut on the device: wide tables cost what their front costs."""
    batch, num_heads, length, head_dim = queries.shape
    _, num_layers, _, window_size, num_kv_heads, _ = blocks.shape
    num_tables = block_table.shape[0]
    block_table, key_positions, query_positions = (
        tensor if tensor.stride(1) == 1 else tensor.contiguous()
        for tensor in (block_table, key_positions, query_positions)
    )
    return Launch(
        _attend_tables,
        (num_kv_heads, num_tables * pieces.num_row_tiles, pieces.num_splits),
        {
            "queries": queries,
            "query_batch_stride": queries.stride(0),
            "query_head_stride": queries.stride(1),
            "query_token_stride": queries.stride(2),
            "query_dim_stride": queries.stride(3),
            "blocks": blocks,
            "place": place,
            "block_table": block_table,
            "table_stride": block_table.stride(0),
            "key_positions": key_positions,
            "key_position_stride": key_positions.stride(0),
            "query_positions": query_positions,
            "query_position_stride": query_positions.stride(0),
            "num_filled": num_filled,
            "outputs": partials.outputs,
            "lse": partials.lse,
            "scale": terms.scale,
            "sliding_window": terms.sliding_window,
            "softcap": terms.softcap,
            "length": length,
            "rows_per_table": batch * num_heads * length // (num_kv_heads * num_tables),
            "num_row_tiles": pieces.num_row_tiles,
            "num_slots": key_positions.shape[1],
            "tokens_per_split": pieces.tokens_per_split,
            "first_split": first_split,
            "num_partials": partials.lse.shape[1],
            "NUM_LAYERS": num_layers,
            "WINDOW": window_size,
            "NUM_KV_HEADS": num_kv_heads,
            "GROUP": num_heads // num_kv_heads,
            "HEAD_DIM": head_dim,
            "DIM_PAD": pad_to_power_of_two(head_dim, at_least=16),
            "BLOCK_M": pieces.block_m,
            "BLOCK_N": pieces.tile["BLOCK_N"],
        },
        pieces.tile.num_warps,
        pieces.tile.num_stages,
    )


# Tables grow while serving and are views into wider ones: nothing may be compiled anew for their sizes and places.
@triton.jit(
    do_not_specialize_on_alignment=["block_table", "key_positions", "query_positions", "num_filled"],
    do_not_specialize=[
        "place",
        "table_stride",
        "key_position_stride",
        "query_position_stride",
        "sliding_window",
        "length",
        "rows_per_table",
        "num_row_tiles",
        "num_slots",
        "tokens_per_split",
        "first_split",
        "num_partials",
    ],
)
def _attend_tables(
    queries,  # [B, H, m, D]
    query_batch_stride,
    query_head_stride,
    query_token_stride,
    query_dim_stride,
    blocks,  # [N, γ, 2, ω, Hkv, D]
    place,
    block_table,  # [tables, NB], rows table_stride apart
    table_stride,
    key_positions,  # [tables, NB · ω]
    key_position_stride,
    query_positions,  # [B, m]
    query_position_stride,
    num_filled,  # [tables]: nothing is visible from that slot on; None: num_slots
    outputs,  # [B · H · m, num_partials, D]
    lse,  # [B · H · m, num_partials]
    scale,
    sliding_window,  # None: all before are seen
    softcap,  # None: none
    length,
    rows_per_table,
    num_row_tiles,
    num_slots,
    tokens_per_split,
    first_split,
    num_partials,
    NUM_LAYERS: tl.constexpr,
    WINDOW: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One program per key head, tile of query rows and piece of a table; softmax online, in powers of two.

    The rows of a table are the (sequence, query head of this key head, token) that read it, tokens fastest: they share
    every key that is loaded, and fill the tensor cores' M side.
    """
    # Key heads are the fastest axis: the programs that run side by side read neighbouring lines of the same blocks.
    kv_head = tl.program_id(0)
    table = tl.program_id(1) // num_row_tiles
    split = tl.program_id(2)

    rows = tl.program_id(1) % num_row_tiles * BLOCK_M + tl.arange(0, BLOCK_M)
    is_row = rows < rows_per_table
    batch = (table + rows // (GROUP * length)).to(tl.int64)
    head = kv_head * GROUP + rows // length % GROUP
    token = rows % length
    dims = tl.arange(0, DIM_PAD)
    is_dim = dims < HEAD_DIM
    query_rows = batch * query_batch_stride + head * query_head_stride + token * query_token_stride
    q = tl.load(
        queries + query_rows[:, None] + dims[None, :] * query_dim_stride,
        mask=is_row[:, None] & is_dim[None, :],
        other=0.0,
    )
    asked = tl.load(query_positions + batch * query_position_stride + token, mask=is_row, other=-1)
    latest = tl.max(asked, 0)
    if sliding_window is not None:
        earliest = tl.min(tl.where(is_row, asked, latest), 0)

    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_M], tl.float32)
    out = tl.zeros([BLOCK_M, DIM_PAD], tl.float32)
    if num_filled is not None:
        num_slots = tl.minimum(tl.load(num_filled + table), num_slots).to(tl.int32)
        tokens_per_split = tl.cdiv(tl.cdiv(num_slots, BLOCK_N), tl.num_programs(2)) * BLOCK_N
    end = tl.minimum((split + 1) * tokens_per_split, num_slots)
    for first in range(split * tokens_per_split, end, BLOCK_N):
        slots = first + tl.arange(0, BLOCK_N)
        positions = tl.load(key_positions + table * key_position_stride + slots, mask=slots < end, other=-1)
        # What no row can see is not read: it costs no bandwidth, and its NaN stay where they are.
        is_read = (positions >= 0) & (positions <= latest)
        if sliding_window is not None:
            is_read &= positions > earliest - sliding_window
        block_ids = tl.load(block_table + table * table_stride + slots // WINDOW, mask=slots < end, other=0)
        lines = ((block_ids * NUM_LAYERS + place) * 2 * WINDOW + slots % WINDOW) * NUM_KV_HEADS + kv_head
        source = blocks + lines[:, None] * HEAD_DIM + dims[None, :]
        is_loaded = is_read[:, None] & is_dim[None, :]
        keys = tl.load(source, mask=is_loaded, other=0.0)
        values = tl.load(source + WINDOW * NUM_KV_HEADS * HEAD_DIM, mask=is_loaded, other=0.0)

        is_visible = (positions[None, :] >= 0) & (positions[None, :] <= asked[:, None])
        if sliding_window is not None:
            is_visible &= positions[None, :] > asked[:, None] - sliding_window
            # Between two far queries' windows there may be slots that were read and that no row sees.
            is_seen = tl.max(is_visible.to(tl.int32), 0) > 0
            values = tl.where(is_seen[:, None], values, 0.0)
        logits = tl.dot(q, tl.trans(keys), input_precision="ieee") * scale
        if softcap is not None:
            logits = softcap * _tanh(logits / softcap)
        logits = tl.where(is_visible, logits * 1.4426950408889634, float("-inf"))  # log2(e)

        new_top = tl.maximum(top, tl.max(logits, 1))
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)  # nothing seen yet: 2^(-inf - 0) = 0
        weights = tl.exp2(logits - shift[:, None])
        rescale = tl.exp2(top - shift)
        total = total * rescale + tl.sum(weights, 1)
        out = tl.dot(weights.to(values.dtype), values, out * rescale[:, None], input_precision="ieee")
        top = new_top

    is_any = total > 0.0
    total = tl.where(is_any, total, 1.0)
    out = out / total[:, None]
    partial = ((batch * (NUM_KV_HEADS * GROUP) + head) * length + token) * num_partials + first_split + split
    tl.store(lse + partial, tl.where(is_any, top + tl.log2(total), float("-inf")), mask=is_row)
    tl.store(
        outputs + partial[:, None] * HEAD_DIM + dims[None, :], out, mask=is_row[:, None] & is_dim[None, :]
    )


@triton.jit
def _tanh(x):
    """Through 2^(-2|x| log2(e)), which never overflows."""
    small = tl.exp2(tl.abs(x) * -2.8853900817779268)
    magnitude = (1.0 - small) / (1.0 + small)
    return tl.where(x < 0, -magnitude, magnitude)
