"""Window scores → the windows that stay, by radix selection: one launch, nothing waits for the host."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from windowkv_kernels.ops._launch import Launch, pad_to_power_of_two
from windowkv_kernels.ops._numbers import numbers_on
from windowkv_kernels.ops._parts import Part, part_of, tile_for


def select_windows(scores: Tensor, counts: Sequence[int], forced: Sequence[int]) -> tuple[Tensor, ...]:
    launch, chosen = plan(scores, counts, forced, part_of(scores.device))
    launch.run()
    return tuple(row[:count] for row, count in zip(chosen, counts, strict=True))


def plan(scores: Tensor, counts: Sequence[int], forced: Sequence[int], part: Part) -> tuple[Launch, Tensor]:
    """The launch, and what it fills: [S, the largest count], each row's windows first."""
    num_rows, num_windows = scores.shape
    scores = scores if scores.stride(1) == 1 else scores.contiguous()
    chosen = torch.empty(num_rows, max(counts, default=0), dtype=torch.int64, device=scores.device)
    tile = tile_for("select_windows", part, num_windows=num_windows)
    arguments = {
        "scores": scores,
        "score_stride": scores.stride(0),
        "num_windows": num_windows,
        "counts": numbers_on(scores.device, counts),
        "forced": numbers_on(scores.device, forced),
        "num_forced": len(forced),
        "chosen": chosen,
        "chosen_stride": chosen.stride(0),
        "BLOCK": min(tile["WINDOWS"], pad_to_power_of_two(num_windows)),
    }
    return Launch(_select_windows, (num_rows,), arguments, tile.num_warps, tile.num_stages), chosen


@triton.jit(do_not_specialize=["score_stride", "num_windows", "num_forced", "chosen_stride"])
def _select_windows(
    scores,  # [S, num_windows]
    score_stride,
    num_windows,
    counts,  # [S]
    forced,  # [num_forced]
    num_forced,
    chosen,  # [S, the largest count]
    chosen_stride,
    BLOCK: tl.constexpr,
):
    """One program per row: the count-th highest rank, found 8 bits at a time from the top, then all above it, and of
    its equals the earliest."""
    row = tl.program_id(0)
    count = tl.load(counts + row).to(tl.int32)
    digits = tl.arange(0, 256)
    threshold = tl.full([], 0, tl.int64)
    wanted = count  # of those whose upper digits are the threshold's
    for level in tl.static_range(4):
        shift = 24 - 8 * level
        histogram = tl.zeros([256], tl.int32)
        for first in range(0, num_windows, BLOCK):
            windows = first + tl.arange(0, BLOCK)
            rank = _ranks(scores + row * score_stride, windows, num_windows, forced, num_forced)
            is_open = (windows < num_windows) & ((rank >> (shift + 8)) == threshold)
            histogram += tl.histogram(((rank >> shift) & 255).to(tl.int32), 256, mask=is_open)
        at_least = tl.cumsum(histogram, 0, reverse=True)
        digit = (
            tl.sum((at_least >= wanted).to(tl.int32), 0) - 1
        )  # the highest digit that enough of them reach
        wanted -= tl.sum(tl.where(digits > digit, histogram, 0), 0)
        threshold = threshold * 256 + digit

    num_written = 0
    num_equal = 0
    for first in range(0, num_windows, BLOCK):
        windows = first + tl.arange(0, BLOCK)
        rank = _ranks(scores + row * score_stride, windows, num_windows, forced, num_forced)
        is_window = windows < num_windows
        is_equal = (is_window & (rank == threshold)).to(tl.int32)
        is_early = num_equal + tl.cumsum(is_equal, 0) <= wanted
        is_chosen = ((is_window & (rank > threshold)) | ((is_equal == 1) & is_early)).to(tl.int32)
        target = num_written + tl.cumsum(is_chosen, 0) - 1
        tl.store(chosen + row * chosen_stride + target, windows.to(tl.int64), mask=is_chosen == 1)
        num_equal += tl.sum(is_equal, 0)
        num_written += tl.sum(is_chosen, 0)


@triton.jit
def _ranks(scores, windows, num_windows, forced, num_forced):
    """Integers 0 … 2^32 - 1 in the order of the scores, as int64; forced windows come above all."""
    score = tl.load(scores + windows, mask=windows < num_windows, other=0.0) + 0.0  # -0 becomes 0
    bits = score.to(tl.int32, bitcast=True).to(tl.int64)
    rank = tl.where(
        bits < 0, -1 - bits, bits + 2147483648
    )  # a float is a sign and a magnitude: negative ones turn
    for index in range(num_forced):
        rank = tl.where(windows == tl.load(forced + index), 4294967295, rank)
    return rank
