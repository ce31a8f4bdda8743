"""gather_windows, scatter_windows and append_kv in the interpreter: the right bits in the right place."""

from __future__ import annotations

import pytest
import torch
from kernel_cases.moves import TINY, AppendCase, MoveCase

from windowkv_kernels import append_kv, gather_windows

pytestmark = pytest.mark.usefixtures("on_triton")


@pytest.mark.parametrize("case", TINY, ids=str)
def test_bits_arrive_where_they_belong_and_nothing_else_changes(case: MoveCase | AppendCase) -> None:
    case.check(torch.device("cpu"))


def test_no_windows_and_no_tokens_are_no_work() -> None:
    blocks, none = torch.ones(2, 1, 2, 4, 1, 2), torch.zeros(0, dtype=torch.int64)
    gather_windows(torch.zeros(1, 2, 5, 1, 2), [0], none, 5, blocks, none)
    append_kv(blocks, 0, torch.zeros(0, 1, 1, 2), torch.zeros(0, 1, 1, 2), none.view(0, 1))
    assert bool((blocks == 1).all())
