"""While serving nothing is compiled anew: what a kernel is compiled for does not change with tables and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from triton.runtime.jit import JITFunction

from windowkv_kernels.ops._ahead_of_time import specialize
from windowkv_kernels.ops._attend_tables import Terms
from windowkv_kernels.ops._launch import Launch
from windowkv_kernels.ops._move_windows import plan as plan_move
from windowkv_kernels.ops._parts import KNOWN
from windowkv_kernels.ops._score_plan import Question
from windowkv_kernels.ops._score_plan import plan as plan_score
from windowkv_kernels.ops.append_kv import plan as plan_append
from windowkv_kernels.ops.decode_attention import plan as plan_decode
from windowkv_kernels.ops.select_windows import plan as plan_select

H100 = KNOWN["H100"]
BLOCKS = torch.empty(40, 4, 2, 8, 2, 64, dtype=torch.bfloat16)
POSITIONS = torch.zeros(4000, dtype=torch.int64)


def forms(launches: Sequence[Launch]) -> list[Any]:
    """What Triton would look up in its cache for each launch. Here the kernels are interpreted: compiled ones of the
    same functions are asked."""
    return [
        specialize(replace(launch, kernel=JITFunction(launch.kernel.fn, **launch.kernel.kwargs)))
        for launch in launches
    ]


def decode(batch: int, num_blocks: int, wider: int, place: int) -> list[Launch]:
    """The table's front of num_blocks, in memory for so many more."""
    queries = torch.empty(batch, 8, 1, 64, dtype=torch.bfloat16)
    table = POSITIONS[: batch * (num_blocks + wider)].view(batch, -1)[:, :num_blocks]
    slots = POSITIONS[: batch * (num_blocks + wider) * 8].view(batch, -1)[:, : num_blocks * 8]
    asked = POSITIONS[wider : wider + batch, None]
    terms = Terms(0.125, None, None)
    return plan_decode(
        queries, BLOCKS, place, table, slots, asked, POSITIONS[wider:], terms, None, queries, H100
    )


def append(batch: int, first: int, place: int) -> list[Launch]:
    new = torch.empty(batch, 2, 1, 64, dtype=torch.bfloat16).transpose(1, 2)
    return [plan_append(BLOCKS, place, new, new, POSITIONS[first : first + batch, None])]


def move(num_tokens: int, num_windows: int) -> list[Launch]:
    staging = torch.empty(4, 2, num_tokens + 3, 2, 64, dtype=torch.bfloat16)
    some = POSITIONS[num_windows : 2 * num_windows]
    return [plan_move(staging, range(4), some, num_tokens, BLOCKS, some, H100, is_gather=True)]


def score(num_tokens: int, top_p: int) -> list[Launch]:
    keys: Tensor = torch.empty(num_tokens, 2, 64, dtype=torch.bfloat16)
    queries = torch.empty(8, 16, 64, dtype=torch.bfloat16)
    return plan_score(queries, keys, Question(8, 0.125, top_p, None, True, num_tokens - 16), H100)[0]


def select(num_windows: int, count: int) -> list[Launch]:
    return [plan_select(torch.empty(2, num_windows), [count, 1], [0], H100)[0]]


@pytest.mark.parametrize(
    ("plan", "problems"),
    [
        (decode, [(2, 16, 0, 0), (1, 17, 0, 1), (3, 31, 1, 3), (5, 1, 3, 2)]),
        (append, [(1, 0, 0), (3, 1, 1), (16, 2, 3)]),
        (move, [(160, 16), (161, 3), (1, 1)]),
        (score, [(1024, 8), (1600, 8), (1031, 8)]),
            (score, [(1024, 3), (1600, 3), (1031, 3)]),
        (select, [(1023, 16), (600, 17), (777, 1)]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_sizes_that_change_while_serving_change_no_kernel(plan: Any, problems: list[tuple[int, ...]]) -> None:
    first, *others = (forms(plan(*problem)) for problem in problems)
    assert all(other == first for other in others)
