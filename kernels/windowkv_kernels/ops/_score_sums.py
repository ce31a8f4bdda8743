"""The pass over the keys that every statistic begins with: each row's log-sum-exp, and each window's where wanted.

A row is one observing query of one query head: row number head · α + observer. All softmaxes are in powers of two.
"""

from __future__ import annotations

import triton
import triton.language as tl

from windowkv_kernels.ops._key_tiles import load_key_halves

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def in_powers_of_two(products, scale, softcap):
    """q·k → logits times log2(e), scaled and capped: softmaxes are taken in powers of two."""
    if softcap is None:
        logits = products * (scale * LOG2_E)
    else:
        products = products * scale
        small = tl.exp2(tl.abs(products) * (-2.0 * LOG2_E / softcap))  # tanh without overflow
        capped = softcap * LOG2_E * (1.0 - small) / (1.0 + small)
        logits = tl.where(products < 0, -capped, capped)
    return logits


@triton.jit
def load_query_halves(
    queries,  # [H, α, D]
    query_head_stride,
    query_token_stride,
    query_dim_stride,
    heads,
    observers,
    is_row,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PAD: tl.constexpr,
):
    half = tl.arange(0, HALF_PAD)[None, :]
    rows = heads * query_head_stride + observers * query_token_stride
    source = queries + rows[:, None] + half * query_dim_stride
    lower = tl.load(source, mask=is_row[:, None] & (half < HALF), other=0.0)
    upper = tl.load(
        source + HALF * query_dim_stride, mask=is_row[:, None] & (half < HEAD_DIM - HALF), other=0.0
    )
    return lower, upper


@triton.jit(
    do_not_specialize=[
        "num_observers",
        "num_tokens",
        "num_review",
        "num_windows",
        "num_rows",
        "windows_per_program",
        "num_splits",
    ]
)
def sum_exponentials(
    queries,  # [H, α, D]
    query_head_stride,
    query_token_stride,
    query_dim_stride,
    num_observers,
    keys,
    key_token_stride,
    key_head_stride,
    low,
    step,
    num_tokens,
    scale,
    softcap,
    split_lse,  # [H · α, num_splits]
    num_splits,
    window_lse,  # [num_windows + 1, H · α], the last for the review part of a window that ends beyond it; or None
    num_windows,
    num_rows,
    num_review,
    windows_per_program,
    GROUP: tl.constexpr,
    IS_CAUSAL: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,
    HALF_PAD: tl.constexpr,
    BITS: tl.constexpr,
    GROUP_TOKENS: tl.constexpr,
    WINDOW: tl.constexpr,
    WINDOW_PAD: tl.constexpr,
    WINDOWS: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """log2 Σ_j 2^logit of each row over the tokens of the split, and of each window; -inf where it sees none.

    One program per key head, tile of its rows and split of the windows. A tile of keys is whole windows, each padded
    to a power of two.
    """
    kv_head, split = tl.program_id(0), tl.program_id(2)
    members = tl.program_id(1) * BLOCK_R + tl.arange(0, BLOCK_R)
    is_row = members < GROUP * num_observers
    head, observer = kv_head * GROUP + members // num_observers, members % num_observers
    row = head * num_observers + observer
    lower_queries, upper_queries = load_query_halves(
        queries,
        query_head_stride,
        query_token_stride,
        query_dim_stride,
        head,
        observer,
        is_row,
        HEAD_DIM,
        HALF,
        HALF_PAD,
    )
    seen_until = num_tokens
    if IS_CAUSAL:
        seen_until = (num_tokens - num_observers + observer + 1)[:, None]

    top = tl.full([BLOCK_R], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_R], tl.float32)
    inside = tl.arange(0, WINDOWS * WINDOW_PAD)
    last_window = tl.minimum((split + 1) * windows_per_program, num_windows)
    for first_window in range(split * windows_per_program, last_window, WINDOWS):
        window, offset = first_window + inside // WINDOW_PAD, inside % WINDOW_PAD
        tokens = window * WINDOW + offset
        is_token = (offset < WINDOW) & (window < last_window) & (tokens < num_tokens)
        lower_keys, upper_keys = load_key_halves(
            keys,
            key_token_stride,
            key_head_stride,
            low,
            step,
            first_window * WINDOW,
            tokens,
            is_token,
            kv_head,
            lower_queries.dtype,
            NUM_KV_HEADS,
            HEAD_DIM,
            HALF,
            HALF_PAD,
            BITS,
            GROUP_TOKENS,
            GROUP_TOKENS % (WINDOWS * WINDOW) == 0,
        )
        products = tl.dot(lower_queries, tl.trans(lower_keys), input_precision="ieee")
        products = tl.dot(upper_queries, tl.trans(upper_keys), products, input_precision="ieee")
        logits = in_powers_of_two(
            products, scale, softcap
        )  # [rows, tokens]: sums run along a thread's own numbers
        logits = tl.where(is_token[None, :] & (tokens[None, :] < seen_until), logits, float("-inf"))
        new_top = tl.maximum(top, tl.max(logits, 1))
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)  # nothing seen yet: 2^(-inf - 0) = 0
        weights = tl.exp2(logits - shift[:, None])
        sums = tl.sum(tl.reshape(weights, [BLOCK_R, WINDOWS, WINDOW_PAD]), 2)
        total = total * tl.exp2(top - shift) + tl.sum(sums, 1)
        top = new_top
        if window_lse is not None:
            windows = first_window + tl.arange(0, WINDOWS)[None, :]
            target = window_lse + first_window * num_rows.to(tl.int64)
            target += tl.arange(0, WINDOWS)[None, :] * num_rows + row[:, None]
            is_stored = is_row[:, None] & (windows < last_window)
            tl.store(target, _log_of(sums, shift[:, None]), mask=is_stored)
            if IS_CAUSAL:
                divided = num_review // WINDOW  # the window that review tokens share with observers
                if (divided >= first_window) & (divided < first_window + WINDOWS):
                    part = tl.where(tokens[None, :] < num_review, weights, 0.0)
                    sums = tl.sum(tl.reshape(part, [BLOCK_R, WINDOWS, WINDOW_PAD]), 2)
                    target = window_lse + num_windows * num_rows.to(tl.int64) + row[:, None] + windows * 0
                    tl.store(target, _log_of(sums, shift[:, None]), mask=is_stored & (windows == divided))
    tl.store(split_lse + row * num_splits + split, _log_of(total, top), mask=is_row)


@triton.jit
def _log_of(total, shift):
    """log2(total · 2^shift), -inf for a total of 0."""
    is_any = total > 0.0
    return tl.where(is_any, shift + tl.log2(tl.where(is_any, total, 1.0)), float("-inf"))


@triton.jit(do_not_specialize=["num_splits", "num_rows"])
def merge_lse(
    split_lse,  # [H · α, num_splits]
    lse,  # [H · α]
    num_splits,
    num_rows,
    ROWS: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """lse = log2 Σ_splits 2^split_lse; every row sees a token, its own at least."""
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    top = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    for first in range(0, num_splits, SPLITS):
        splits = first + tl.arange(0, SPLITS)
        is_there = (rows < num_rows)[:, None] & (splits < num_splits)[None, :]
        source = split_lse + rows[:, None] * num_splits + splits[None, :]
        pieces = tl.load(source, mask=is_there, other=float("-inf"))
        new_top = tl.maximum(top, tl.max(pieces, 1))
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        total = total * tl.exp2(top - shift) + tl.sum(tl.exp2(pieces - shift[:, None]), 1)
        top = new_top
    tl.store(lse + rows, _log_of(total, top), mask=rows < num_rows)
