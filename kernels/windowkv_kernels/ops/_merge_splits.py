"""Attention computed in pieces → one output, by log-sum-exp."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from windowkv_kernels.ops._launch import Launch, pad_to_power_of_two

SPLITS_AT_ONCE = 16


@dataclass(frozen=True)
class Partials:
    """What each of num_splits pieces of the keys gave for each row (sequence, query head, token), fp32.

    outputs: [rows, num_splits, D], each normalized by itself; lse: [rows, num_splits], log2 of the sum of 2^logits,
    -inf where a row sees nothing of the piece.
    """

    outputs: Tensor
    lse: Tensor

    @classmethod
    def empty(cls, num_rows: int, num_splits: int, head_dim: int, device: torch.device) -> Partials:
        outputs = torch.empty(num_rows, num_splits, head_dim, dtype=torch.float32, device=device)
        return cls(outputs, torch.empty(num_rows, num_splits, dtype=torch.float32, device=device))


def plan_merge(partials: Partials, sinks: Tensor | None, out: Tensor) -> Launch:
    """out [B, H, m, D], contiguous, from its rows' partials."""
    num_rows, num_splits, head_dim = partials.outputs.shape
    _, num_heads, length, _ = out.shape
    return Launch(
        _merge_splits,
        (num_rows,),
        {
            "outputs": partials.outputs,
            "lse": partials.lse,
            "sinks": None if sinks is None else sinks.contiguous(),
            "out": out,
            "num_splits": num_splits,
            "num_heads": num_heads,
            "length": length,
            "HEAD_DIM": head_dim,
            "DIM_PAD": pad_to_power_of_two(head_dim),
            "SPLITS": SPLITS_AT_ONCE,
        },
    )


@triton.jit(do_not_specialize=["num_splits", "num_heads", "length"])
def _merge_splits(
    outputs,
    lse,
    sinks,  # [H] logits, or None
    out,
    num_splits,
    num_heads,
    length,
    HEAD_DIM: tl.constexpr,
    DIM_PAD: tl.constexpr,
    SPLITS: tl.constexpr,
):
    """out = Σ_s 2^(lse_s - top) out_s / (Σ_s 2^(lse_s - top) + 2^(sink - top)); a row that saw nothing gives zeros."""
    row = tl.program_id(0).to(tl.int64)
    dims = tl.arange(0, DIM_PAD)
    is_dim = dims < HEAD_DIM
    top = float("-inf")
    for first in range(0, num_splits, SPLITS):
        splits = first + tl.arange(0, SPLITS)
        pieces = tl.load(lse + row * num_splits + splits, mask=splits < num_splits, other=float("-inf"))
        top = tl.maximum(top, tl.max(pieces, 0))
    total = 0.0
    if sinks is not None:
        sink = tl.load(sinks + row // length % num_heads).to(tl.float32) * 1.4426950408889634  # log2(e)
        top = tl.maximum(top, sink)
        total = tl.exp2(sink - top)
    top = tl.where(top == float("-inf"), 0.0, top)  # 2^(-inf - 0) = 0, where 2^(-inf + inf) would be NaN
    merged = tl.zeros([DIM_PAD], tl.float32)
    for first in range(0, num_splits, SPLITS):
        splits = first + tl.arange(0, SPLITS)
        is_split = splits < num_splits
        pieces = tl.load(lse + row * num_splits + splits, mask=is_split, other=float("-inf"))
        weights = tl.exp2(pieces - top)
        total += tl.sum(weights, 0)
        source = outputs + (row * num_splits + splits[:, None]) * HEAD_DIM + dims[None, :]
        values = tl.load(source, mask=is_split[:, None] & is_dim[None, :], other=0.0)
        merged += tl.sum(weights[:, None] * values, 0)
    merged = merged / tl.where(total > 0.0, total, 1.0)
    tl.store(out + row * HEAD_DIM + dims, merged.to(out.dtype.element_ty), mask=is_dim)
