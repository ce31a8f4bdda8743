"""The arithmetic on windows: one function per operation, the same on every device.

Shapes use these letters: n tokens of a prompt, α observing queries, H query heads, Hkv key-value heads (query
head h reads key head h // (H / Hkv)), D head_dim, ω tokens per window, γ layers per group, N blocks in the
pool, B sequences, m new tokens per sequence, NB blocks in the longest block table.

Every function checks shapes and dtypes and raises ValueError. Scores and softmax are fp32, whatever comes in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from windowkv_kernels import checks
from windowkv_kernels.dispatch import twins
from windowkv_kernels.formats import BLOCK_CODECS, BlockCodec, QuantizedBlocks, QuantizedKeys, WindowScores

__all__ = [
    "BLOCK_CODECS",
    "BlockCodec",
    "QuantizedBlocks",
    "QuantizedKeys",
    "WindowScores",
    "append_kv",
    "decode_attention",
    "dequantize_blocks",
    "dequantize_keys",
    "gather_windows",
    "quantize_blocks",
    "quantize_keys",
    "scatter_windows",
    "score_leader_keys",
    "score_windows",
    "select_windows",
    "shared_prefix_decode",
]


def score_windows(
    queries: Tensor,
    keys: Tensor,
    *,
    window_size: int,
    scale: float,
    num_observed: int | None = None,
    top_p: int | None = None,
    softcap: float | None = None,
    lse: Tensor | None = None,
) -> WindowScores:
    """How much the last tokens of a prompt attend to each window (WindowKV, equations 1, 2 and 4).

        A_ij = softmax_j(scale · q_i·k_j), causal;   t_j = Σ_i A_ij
        s_w  = mean of t over the window's review tokens, or of its top_p largest, per head; then over heads

    queries: [H, ≥α, D], of the last tokens, after RoPE; the last num_observed (default: all) of them observe.
    keys: [n, Hkv, D], of all tokens, the observers' included; never repeated to H heads.
    softcap: c·tanh(x/c) on the logits, for models that have it.
    lse: [H, ≥α] fp32, log Σ_j exp(logit_ij) of the same queries, where the attention that ran them has told; else it
    is found first, and a GPU reads the keys twice for a top-p mean, whose ranks need all of A.
    Windows are cut from token 0 over all n tokens. Review tokens are those before n-α: a score counts only
    the window's review tokens and divides by their real number; without one it is -inf. mass counts all n.
    A GPU takes windows of up to 256 tokens.
    """
    num_observed = queries.shape[1] if num_observed is None else num_observed
    checks.score_windows(queries, keys, num_observed, window_size, top_p, lse)
    first = queries.shape[1] - num_observed
    observers = (queries[:, first:], keys, None if lse is None else lse[:, first:])
    result: WindowScores = twins(keys.device).score_windows(*observers, window_size, scale, top_p, softcap)
    return result


def score_leader_keys(
    queries: Tensor,
    keys: Tensor | QuantizedKeys,
    *,
    window_size: int,
    scale: float,
    top_p: int | None = None,
    softcap: float | None = None,
) -> WindowScores:
    """How much the tokens of a question that follows the whole document attend to each of its windows.

    As score_windows, but every query sees all n keys and every token is a review token.
    queries: [H, m, D]; keys: [n, Hkv, D], or the same quantized.
    """
    checks.score_leader_keys(queries, keys, window_size, top_p)
    result: WindowScores = twins(queries.device).score_leader_keys(
        queries, keys, window_size, scale, top_p, softcap
    )
    return result


def select_windows(
    scores: Tensor, counts: Sequence[int], *, forced: Sequence[int] = ()
) -> tuple[Tensor, ...]:
    """The best windows of each leader, in order of position: int64 [counts[s]] per row of scores, on its device.

    scores: [S, num_windows] fp32, without NaN: a leader's WindowScores.score each; of equals the earlier stays.
    counts: windows per row under its budget, forced ones included. forced: windows that stay in every row.
    On a GPU nothing waits for the host.
    """
    checks.select_windows(scores, counts, forced)
    result: tuple[Tensor, ...] = twins(scores.device).select_windows(scores, counts, forced)
    return result


def quantize_keys(keys: Tensor, *, bits: int, group_tokens: int = 256) -> QuantizedKeys:
    """Keys [n, Hkv, D] to 4 or 8 bits per number: per channel, asymmetric, over groups of consecutive tokens.

        code = round((x - low) / step),  low = min over the group,  step = (max - min) / (2^bits - 1)

    Error at most step / 2 of the channel in its group, that is (max - min) / 30 at 4 bits and (max - min) /
    510 at 8, plus fp32 rounding. Keys that are not finite are refused.
    """
    checks.quantize_keys(keys, bits, group_tokens)
    result: QuantizedKeys = twins(keys.device).quantize_keys(keys, bits, group_tokens)
    return result


def dequantize_keys(quantized: QuantizedKeys, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """The keys [n, Hkv, D] that quantized stands for: low + step · code."""
    result: Tensor = twins(quantized.codes.device).dequantize_keys(quantized, dtype)
    return result


def quantize_blocks(blocks: Tensor, block_ids: Tensor, *, codec: BlockCodec) -> QuantizedBlocks:
    """Blocks block_ids of [N, γ, 2, ω, Hkv, D] to 8 or 4 bits per number: keys per channel over the block's ω tokens,
    values per token and half of the channels, each group by its own scales (QuantizedBlocks has the layout).

        int8: code = round(x / step),          step = max |x| / 127
        fp8:  code = e4m3(x / step),           step = max |x| / 448
        int4: code = round((x - low) / step),  low = min, step = (max - low) / 15

    low is rounded down and step up to bf16 before codes are made, so that the error, apart from fp32 rounding, is
        int8: at most step / 2,                     step <= (1 + 2^-7) max |x| / 127
        fp8:  at most max(|x| / 16, step / 2^10),   step <= (1 + 2^-7) max |x| / 448
        int4: at most step / 2,                     step <= (1 + 2^-7) (max - min + |min| / 2^7) / 15
    A group with a number that is not finite comes back as NaN.
    """
    checks.quantize_blocks(blocks, block_ids, codec)
    result: QuantizedBlocks = twins(blocks.device).quantize_blocks(blocks, block_ids, codec)
    return result


def dequantize_blocks(quantized: QuantizedBlocks, blocks: Tensor, block_ids: Tensor) -> None:
    """Write what quantized stands for into blocks block_ids of [N, γ, 2, ω, Hkv, D], in place."""
    checks.dequantize_blocks(quantized, blocks, block_ids)
    twins(blocks.device).dequantize_blocks(quantized, blocks, block_ids)


def gather_windows(
    staging: Tensor,
    layers: Sequence[int],
    windows: Tensor,
    num_tokens: int,
    blocks: Tensor,
    block_ids: Tensor,
) -> None:
    """Copy windows of a prefilled prompt into blocks: block block_ids[i] receives window windows[i].

    staging: [num_layers, 2, capacity, Hkv, D]; layers: the γ rows of staging that are the group's, in order.
    windows, block_ids: int64, of one length; blocks: [N, γ, 2, ω, Hkv, D], written in place.
    Slots past num_tokens are zeroed.
    """
    checks.move_windows(staging, layers, windows, num_tokens, blocks, block_ids)
    twins(blocks.device).gather_windows(staging, layers, windows, num_tokens, blocks, block_ids)


def scatter_windows(
    blocks: Tensor,
    block_ids: Tensor,
    staging: Tensor,
    layers: Sequence[int],
    windows: Tensor,
    num_tokens: int,
) -> None:
    """The inverse of gather_windows: blocks → staging. Staging past num_tokens is left as it is."""
    checks.move_windows(staging, layers, windows, num_tokens, blocks, block_ids)
    twins(blocks.device).scatter_windows(blocks, block_ids, staging, layers, windows, num_tokens)


def append_kv(blocks: Tensor, place: int, keys: Tensor, values: Tensor, slots: Tensor) -> None:
    """Write new tokens' keys and values [B, m, Hkv, D] into blocks [N, γ, 2, ω, Hkv, D], in place.

    place: the layer's place in its group, 0 … γ-1.
    slots: [B, m] int64, block_id · ω + offset within the block; a token whose slot is -1 is not written.
    """
    checks.append_kv(blocks, place, keys, values, slots)
    twins(blocks.device).append_kv(blocks, place, keys, values, slots)


def decode_attention(
    queries: Tensor,
    blocks: Tensor,
    place: int,
    block_table: Tensor,
    key_positions: Tensor,
    query_positions: Tensor,
    num_filled: Tensor | None = None,
    *,
    scale: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attention of new tokens over the blocks of their tables; returns [B, H, m, D] in the queries' dtype.

        out = Σ_j softmax_j(softcap(scale · q·k_j)) v_j over the visible slots j;
        with sinks, the softmax has one more logit per head, which carries no value

    queries: [B, H, m, D]; blocks: [N, γ, 2, ω, Hkv, D] of one dtype; place: the layer's place in its group.
    block_table: [B, NB] int64, padded with any valid block id.
    key_positions: [B, NB·ω] int64, the logical position of each slot; -1: an empty or padded slot.
    query_positions: [B, m] int64.
    num_filled: [B] int64, the slots from each table's start that may be visible, where the tables are wider; the
    caller's promise. A GPU looks at it on the device alone.
    sinks: [H] logits.
    A slot is visible iff 0 <= key_position <= query_position and, with a sliding window, key_position >
    query_position - sliding_window. What an invisible slot holds, NaN included, does not matter. A query that
    sees nothing gives zeros.
    """
    tables = (block_table, key_positions, query_positions, num_filled)
    checks.decode_attention(queries, blocks, place, *tables, sinks)
    result: Tensor = twins(queries.device).decode_attention(
        queries,
        blocks,
        place,
        *tables,
        scale,
        sliding_window,
        softcap,
        sinks,
    )
    return result


def shared_prefix_decode(
    queries: Tensor,
    blocks: Tensor,
    place: int,
    shared_table: Tensor,
    shared_positions: Tensor,
    block_table: Tensor,
    key_positions: Tensor,
    query_positions: Tensor,
    num_filled: Tensor | None = None,
    num_shared: Tensor | None = None,
    *,
    scale: float,
    sliding_window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """decode_attention of sequences whose tables begin alike: the common blocks are read once for the batch.

    As decode_attention with each sequence's table being shared_table followed by its own of block_table. The two
    parts are computed apart and merged by log-sum-exp.
    shared_table: [NS] int64; shared_positions: [NS·ω] int64, -1: an empty slot. num_filled: of the own
    tables; num_shared: [1] int64, the same of the shared one.
    """
    checks.shared_prefix(blocks, shared_table, shared_positions, num_shared)
    tables = (block_table, key_positions, query_positions, num_filled)
    checks.decode_attention(queries, blocks, place, *tables, sinks)
    result: Tensor = twins(queries.device).shared_prefix_decode(
        queries,
        blocks,
        place,
        shared_table,
        shared_positions,
        *tables,
        num_shared,
        scale,
        sliding_window,
        softcap,
        sinks,
    )
    return result
