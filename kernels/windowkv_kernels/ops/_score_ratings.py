"""The pass over the keys that knows the rows' log-sum-exps: what each token receives, ranked within its window.

Nothing of the size [H, α, n] is ever written, nor of [H, n]: a window's tokens lie in one tile. Where a pass before it
had to find the log-sum-exps, the keys are read twice: a token's rank needs Σ_i 2^logit / Z_i, and the Z_i are known
only when all keys have been seen. What a single reading would have to keep until then, the logits, is G · α / D times
the keys: as much again, written and read. So each program goes back over its piece from the end, where that pass left
the keys in L2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from windowkv_kernels.ops._key_tiles import load_key_halves
from windowkv_kernels.ops._score_sums import in_powers_of_two, load_query_halves


@triton.jit
def _received(
    lower_queries,
    upper_queries,
    lower_keys,
    upper_keys,
    row_lse,
    seen_until,
    tokens,
    scale,
    softcap,
    HEADS: tl.constexpr,
    OBSERVERS: tl.constexpr,
):
    """[tokens, HEADS]: Σ_i softmax_ij over the observers, which lie along a thread's own numbers."""
    products = tl.dot(lower_keys, tl.trans(lower_queries), input_precision="ieee")
    products = tl.dot(upper_keys, tl.trans(upper_queries), products, input_precision="ieee")
    weights = tl.exp2(in_powers_of_two(products, scale, softcap) - row_lse[None, :])
    weights = tl.where(tokens[:, None] < seen_until, weights, 0.0)
    return tl.sum(tl.reshape(weights, [tokens.shape[0], HEADS, OBSERVERS]), 2)


@triton.jit(
    do_not_specialize=[
        "num_observers",
        "num_tokens",
        "num_review",
        "top_p",
        "num_windows",
        "windows_per_program",
    ]
)
def rate_windows(
    queries,
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
    lse,  # [H · α]
    rated,  # [Hkv · head tiles, 2, num_windows]: sums of scores, sums of mass
    num_windows,
    windows_per_program,
    num_review,
    top_p,
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
    HEADS: tl.constexpr,
    OBSERVERS: tl.constexpr,
    FITS: tl.constexpr,  # all observers are in one tile, loaded once
    IS_MEAN: tl.constexpr,  # all tokens count, and none is ranked
):
    """Per window: Σ_heads of the top_p largest t_j among its review tokens, and Σ_heads Σ_j t_j over all of them.

    One program per key head, tile of its query heads and piece of the windows. A tile of keys is whole windows, each
    padded to a power of two.
    """
    kv_head, piece = tl.program_id(0), tl.program_id(2)
    BLOCK_N: tl.constexpr = WINDOWS * WINDOW_PAD
    columns = tl.arange(0, HEADS * OBSERVERS)
    member = tl.program_id(1) * HEADS + columns // OBSERVERS
    head = kv_head * GROUP + member
    observer = columns % OBSERVERS
    if FITS:
        is_row = (member < GROUP) & (observer < num_observers)
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
        row_lse = tl.load(lse + head * num_observers + observer, mask=is_row, other=float("inf"))
        seen_until = num_tokens
        if IS_CAUSAL:
            seen_until = (num_tokens - num_observers + observer + 1)[None, :]

    inside = tl.arange(0, BLOCK_N)
    start = piece * windows_per_program
    last_window = tl.minimum(start + windows_per_program, num_windows)
    num_tiles = tl.cdiv(last_window - start, WINDOWS)
    for tile in range(num_tiles):
        first_window = start + (num_tiles - 1 - tile) * WINDOWS
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
            queries.dtype.element_ty,
            NUM_KV_HEADS,
            HEAD_DIM,
            HALF,
            HALF_PAD,
            BITS,
            GROUP_TOKENS,
            (GROUP_TOKENS % (WINDOWS * WINDOW) == 0),
        )
        if FITS:
            received = _received(
                lower_queries,
                upper_queries,
                lower_keys,
                upper_keys,
                row_lse,
                seen_until,
                tokens,
                scale,
                softcap,
                HEADS,
                OBSERVERS,
            )
        else:
            received = tl.zeros([BLOCK_N, HEADS], tl.float32)
            for first in range(0, num_observers, OBSERVERS):
                some = first + observer
                is_row = (member < GROUP) & (some < num_observers)
                lower_queries, upper_queries = load_query_halves(
                    queries,
                    query_head_stride,
                    query_token_stride,
                    query_dim_stride,
                    head,
                    some,
                    is_row,
                    HEAD_DIM,
                    HALF,
                    HALF_PAD,
                )
                row_lse = tl.load(lse + head * num_observers + some, mask=is_row, other=float("inf"))
                seen_until = num_tokens
                if IS_CAUSAL:
                    seen_until = (num_tokens - num_observers + some + 1)[None, :]
                received += _received(
                    lower_queries,
                    upper_queries,
                    lower_keys,
                    upper_keys,
                    row_lse,
                    seen_until,
                    tokens,
                    scale,
                    softcap,
                    HEADS,
                    OBSERVERS,
                )
        received = tl.where(is_token[:, None], received, 0.0)
        mass = tl.sum(tl.reshape(tl.sum(received, 1), [WINDOWS, WINDOW_PAD]), 1)
        review = tl.where(tokens[:, None] < num_review, received, 0.0)
        if IS_MEAN:
            score = tl.sum(tl.reshape(tl.sum(review, 1), [WINDOWS, WINDOW_PAD]), 1)
        else:
            # What is no review token is 0, the least that a token can have: it displaces nobody from the top.
            per_head = tl.permute(tl.reshape(review, [WINDOWS, WINDOW_PAD, HEADS]), [0, 2, 1])
            ranked = tl.sort(per_head, descending=True)
            is_top = tl.arange(0, WINDOW_PAD)[None, None, :] < top_p
            score = tl.sum(tl.sum(tl.where(is_top, ranked, 0.0), 2), 1)
        windows = first_window + tl.arange(0, WINDOWS)
        target = rated + (kv_head * tl.num_programs(1) + tl.program_id(1)) * 2 * num_windows + windows
        tl.store(target, score, mask=windows < last_window)
        tl.store(target + num_windows, mass, mask=windows < last_window)


@triton.jit(
    do_not_specialize_on_alignment=["score", "mass"],  # rows of one tensor, as long as there are windows
    do_not_specialize=["num_parts", "num_windows", "num_review", "counted", "num_rows", "num_heads"],
)
def sum_ratings(
    rated,  # [parts, 2, num_windows]
    score,  # [num_windows]
    mass,
    num_parts,
    num_windows,
    num_review,
    counted,  # at most so many tokens of a window count
    num_heads,
    num_rows,  # H · α
    WINDOW: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """score = sums / (tokens counted · heads), -inf without a review token; mass = sums / (heads · observers)."""
    windows = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    is_window = windows < num_windows
    scores = tl.zeros([BLOCK], tl.float32)
    masses = tl.zeros([BLOCK], tl.float32)
    for part in range(num_parts):
        source = rated + part * 2 * num_windows + windows
        scores += tl.load(source, mask=is_window, other=0.0)
        masses += tl.load(source + num_windows, mask=is_window, other=0.0)
    num_counted = tl.minimum(num_review - windows * WINDOW, counted)
    mean = scores / (tl.maximum(num_counted, 1) * num_heads).to(tl.float32)
    tl.store(score + windows, tl.where(num_counted > 0, mean, float("-inf")), mask=is_window)
    tl.store(mass + windows, masses / num_rows, mask=is_window)
