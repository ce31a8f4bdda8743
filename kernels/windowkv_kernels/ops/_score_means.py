"""Windows' means from the log-sum-exps that one pass over the keys has left: score and mass without another."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit(
    do_not_specialize_on_alignment=["score", "mass"],  # rows of one tensor, as long as there are windows
    do_not_specialize=["num_windows", "num_rows", "num_heads", "num_review"],
)
def average_windows(
    lse,  # [H · α]
    window_lse,  # [num_windows + 1, H · α]
    score,  # [num_windows]
    mass,
    num_windows,
    num_rows,  # H · α
    num_heads,
    num_review,
    IS_CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr,
    BLOCK_W: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """mass_w = Σ_rows 2^(window_lse_w - lse) / rows; score_w likewise over review tokens / (their number · heads)."""
    first_window = tl.program_id(0) * BLOCK_W
    windows = first_window + tl.arange(0, BLOCK_W)
    of_windows = window_lse + first_window * num_rows.to(tl.int64)
    of_divided = window_lse + num_windows * num_rows.to(tl.int64)
    sums = tl.zeros([BLOCK_W], tl.float32)
    review = 0.0
    for first in range(0, num_rows, BLOCK_R):
        rows = first + tl.arange(0, BLOCK_R)
        is_row = rows < num_rows
        row_lse = tl.load(lse + rows, mask=is_row, other=0.0)
        is_there = (windows < num_windows)[:, None] & is_row[None, :]
        source = of_windows + tl.arange(0, BLOCK_W)[:, None] * num_rows + rows[None, :]
        pieces = tl.load(source, mask=is_there, other=float("-inf"))
        sums += tl.sum(tl.exp2(pieces - row_lse[None, :]), 1)
        if IS_CAUSAL:
            # Of the window that review tokens share with observers, only their part counts for the score.
            pieces = tl.load(of_divided + rows, mask=is_row, other=float("-inf"))
            review += tl.sum(tl.exp2(pieces - row_lse), 0)
    num_counted = tl.minimum(num_review - windows * WINDOW, WINDOW)
    counted = sums
    if IS_CAUSAL:
        counted = tl.where(num_counted == WINDOW, sums, review)
    mean = counted / (tl.maximum(num_counted, 1) * num_heads).to(tl.float32)
    is_window = windows < num_windows
    tl.store(score + windows, tl.where(num_counted > 0, mean, float("-inf")), mask=is_window)
    tl.store(mass + windows, sums / num_rows, mask=is_window)
