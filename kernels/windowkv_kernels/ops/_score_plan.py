"""The launches that score windows, for score_windows and score_leader_keys.

What a token receives is Σ_i 2^(logit_i - lse_i). Where the rows' log-sum-exps are known, as the attention of a prefill
leaves them, one pass over the keys tells every statistic. Where they are not, means still need only one: it leaves
log-sum-exps of every row and window, [H · α, n / ω], from which they follow. The top-p mean ranks tokens by what all
observers give them: it then takes two. Nothing of the size [H, α, n] is ever written, nor of [H, n].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from windowkv_kernels.formats import QuantizedKeys, WindowScores
from windowkv_kernels.ops._grids import count_splits
from windowkv_kernels.ops._key_tiles import computing_dtype, key_arguments
from windowkv_kernels.ops._launch import Launch, pad_to_power_of_two
from windowkv_kernels.ops._parts import Part, Tile, tile_for
from windowkv_kernels.ops._score_means import average_windows
from windowkv_kernels.ops._score_ratings import rate_windows, sum_ratings
from windowkv_kernels.ops._score_sums import LOG2_E, merge_lse, sum_exponentials

MAX_WINDOW = 256  # tokens; a window must fit into one tile
# A mean leaves so many log-sum-exps of smaller windows, or of more observers, that reading the keys twice is cheaper.
MIN_MEAN_WINDOW = 8
MAX_MEAN_OBSERVERS = 128
MIN_TOKENS_PER_SPLIT = 512


@dataclass(frozen=True)
class Question:
    """What is asked of the keys. num_review: the tokens before it count for the score."""

    window_size: int
    scale: float
    top_p: int | None
    softcap: float | None
    is_causal: bool
    num_review: int


@dataclass(frozen=True)
class Work:
    """The sizes of a problem, its tile, and the arguments that its kernels share."""

    question: Question
    arguments: dict[str, Any]
    tile: Tile
    part: Part
    num_heads: int
    num_observers: int
    num_kv_heads: int
    num_windows: int
    windows_at_once: int
    device: torch.device

    @property
    def group(self) -> int:
        return self.num_heads // self.num_kv_heads

    @property
    def num_rows(self) -> int:
        return self.num_heads * self.num_observers

    @property
    def is_mean(self) -> bool:
        return self.question.top_p is None or self.question.top_p >= self.question.window_size

    @property
    def follows_from_windows(self) -> bool:
        """The statistic, once the log-sum-exps of all windows are there."""
        is_worth_it = (
            self.question.window_size >= MIN_MEAN_WINDOW and self.num_observers <= MAX_MEAN_OBSERVERS
        )
        return self.is_mean and is_worth_it

    def split(self, programs_per_split: int) -> tuple[int, int]:
        """(splits, windows per split), whole tiles each, as many as fill the GPU."""
        num_tiles = triton.cdiv(self.num_windows, self.windows_at_once)
        num_tokens = self.num_windows * self.question.window_size
        most = max(1, min(num_tiles, num_tokens // MIN_TOKENS_PER_SPLIT))
        resident = self.part.num_multiprocessors * self.tile["RESIDENT"]
        tiles_per_split = triton.cdiv(num_tiles, count_splits(programs_per_split, most, resident))
        return triton.cdiv(num_tiles, tiles_per_split), tiles_per_split * self.windows_at_once


def plan(
    queries: Tensor,
    keys: Tensor | QuantizedKeys,
    question: Question,
    part: Part,
    lse: Tensor | None = None,
) -> tuple[list[Launch], WindowScores]:
    """queries [H, α, D], lse [H, α] where it is known. The scores are there when the launches have run."""
    work = _measure(queries, keys, question, part)
    empty = torch.empty(2, work.num_windows, dtype=torch.float32, device=work.device)
    scores = WindowScores(empty[0], empty[1])
    if lse is not None:
        return _plan_ratings(work, (lse * LOG2_E.value).flatten(), scores), scores
    if work.follows_from_windows:
        window_lse = torch.empty(work.num_windows + 1, work.num_rows, dtype=torch.float32, device=work.device)
        sums, found = _plan_sums(work, window_lse)
        return [*sums, _plan_means(work, found, window_lse, scores)], scores
    sums, found = _plan_sums(work, None)
    return [*sums, *_plan_ratings(work, found, scores)], scores


def _measure(queries: Tensor, keys: Tensor | QuantizedKeys, question: Question, part: Part) -> Work:
    if question.window_size > MAX_WINDOW:
        raise ValueError(f"windows of {question.window_size} tokens: a GPU scores up to {MAX_WINDOW}")
    num_heads, num_observers, head_dim = queries.shape
    queries = queries.to(computing_dtype(queries, keys))
    of_keys = key_arguments(keys)
    tile = tile_for("score_windows", part, head_dim=head_dim, itemsize=queries.element_size())
    window_pad = pad_to_power_of_two(question.window_size)
    windows_at_once = max(1, tile["TOKENS"] // window_pad)
    arguments = of_keys | {
        "queries": queries,
        "query_head_stride": queries.stride(0),
        "query_token_stride": queries.stride(1),
        "query_dim_stride": queries.stride(2),
        "num_observers": num_observers,
        "scale": question.scale,
        "softcap": question.softcap,
        "num_windows": triton.cdiv(of_keys["num_tokens"], question.window_size),
        "num_review": question.num_review,
        "GROUP": num_heads // of_keys["NUM_KV_HEADS"],
        "IS_CAUSAL": question.is_causal,
        "WINDOW": question.window_size,
        "WINDOW_PAD": window_pad,
        "WINDOWS": windows_at_once,
    }
    return Work(
        question,
        arguments,
        tile,
        part,
        num_heads,
        num_observers,
        of_keys["NUM_KV_HEADS"],
        arguments["num_windows"],
        windows_at_once,
        queries.device,
    )


def _plan_sums(work: Work, window_lse: Tensor | None) -> tuple[list[Launch], Tensor]:
    """The launches after which each row's log-sum-exp [H · α] is there, and those of its windows where asked for."""
    rows_per_head = work.group * work.num_observers
    block_r = min(work.tile["ROWS"], pad_to_power_of_two(rows_per_head, at_least=16))
    num_row_tiles = triton.cdiv(rows_per_head, block_r)
    num_splits, windows_per_program = work.split(work.num_kv_heads * num_row_tiles)
    split_lse = torch.empty(work.num_rows, num_splits, dtype=torch.float32, device=work.device)
    arguments = work.arguments | {
        "split_lse": split_lse,
        "num_splits": num_splits,
        "window_lse": window_lse,
        "num_rows": work.num_rows,
        "windows_per_program": windows_per_program,
        "BLOCK_R": block_r,
    }
    grid = (work.num_kv_heads, num_row_tiles, num_splits)
    sums = Launch(sum_exponentials, grid, arguments, work.tile.num_warps, work.tile.num_stages)
    merge, lse = _plan_merge(split_lse)
    return [sums, merge], lse


def _plan_merge(split_lse: Tensor) -> tuple[Launch, Tensor]:
    num_rows, num_splits = split_lse.shape
    lse = torch.empty(num_rows, dtype=torch.float32, device=split_lse.device)
    arguments = {
        "split_lse": split_lse,
        "lse": lse,
        "num_splits": num_splits,
        "num_rows": num_rows,
        "ROWS": 16,
        "SPLITS": 64,
    }
    return Launch(merge_lse, (triton.cdiv(num_rows, arguments["ROWS"]),), arguments), lse


def _plan_means(work: Work, lse: Tensor, window_lse: Tensor, scores: WindowScores) -> Launch:
    block_w, block_r = 16, min(128, pad_to_power_of_two(work.num_rows))
    return Launch(
        average_windows,
        (triton.cdiv(work.num_windows, block_w),),
        {
            "lse": lse,
            "window_lse": window_lse,
            "score": scores.score,
            "mass": scores.mass,
            "num_windows": work.num_windows,
            "num_rows": work.num_rows,
            "num_heads": work.num_heads,
            "num_review": work.question.num_review,
            "IS_CAUSAL": work.question.is_causal,
            "WINDOW": work.question.window_size,
            "BLOCK_W": block_w,
            "BLOCK_R": block_r,
        },
    )


def _plan_ratings(work: Work, lse: Tensor, scores: WindowScores) -> list[Launch]:
    window_size = work.question.window_size
    top_p = min(work.question.top_p or window_size, window_size)
    observers = min(work.tile["ROWS"], pad_to_power_of_two(work.num_observers))
    # Columns of a tile are whole heads, and at least 16, a tensor core's least.
    heads = max(16 // observers, 1, min(pad_to_power_of_two(work.group), work.tile["ROWS"] // observers))
    num_head_tiles = triton.cdiv(work.group, heads)
    num_pieces, windows_per_program = work.split(work.num_kv_heads * num_head_tiles)
    rated = torch.empty(
        work.num_kv_heads * num_head_tiles, 2, work.num_windows, dtype=torch.float32, device=work.device
    )
    arguments = work.arguments | {
        "lse": lse,
        "rated": rated,
        "windows_per_program": windows_per_program,
        "top_p": top_p,
        "HEADS": heads,
        "OBSERVERS": observers,
        "FITS": work.num_observers <= observers,
        "IS_MEAN": work.is_mean,
    }
    grid = (work.num_kv_heads, num_head_tiles, num_pieces)
    rate = Launch(rate_windows, grid, arguments, work.tile.num_warps, work.tile.num_stages)
    return [rate, _plan_sum_ratings(work, rated, top_p, scores)]


def _plan_sum_ratings(work: Work, rated: Tensor, top_p: int, scores: WindowScores) -> Launch:
    block = 256
    return Launch(
        sum_ratings,
        (triton.cdiv(work.num_windows, block),),
        {
            "rated": rated,
            "score": scores.score,
            "mass": scores.mass,
            "num_parts": rated.shape[0],
            "num_windows": work.num_windows,
            "num_review": work.question.num_review,
            "counted": top_p,
            "num_heads": work.num_heads,
            "num_rows": work.num_rows,
            "WINDOW": work.question.window_size,
            "BLOCK": block,
        },
    )
