"""select_windows, plain and in the interpreter: the best, the forced, in order."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from kernel_cases.selection import TINY, SelectCase

from windowkv_kernels import select_windows

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", TINY, ids=str)
def test_the_best_and_the_forced_stay_in_order_of_position(case: SelectCase) -> None:
    case.check(CPU)


@pytest.mark.usefixtures("on_triton")
@pytest.mark.parametrize("case", TINY, ids=str)
def test_the_triton_twin_chooses_the_same(case: SelectCase) -> None:
    case.check(CPU)


@pytest.mark.usefixtures("on_triton")
def test_minus_zero_ties_with_zero() -> None:
    (chosen,) = select_windows(torch.tensor([[-1.0, -0.0, 0.0, -0.0]]), [2])
    assert chosen.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("scores", "counts", "forced"),
    [
        (torch.zeros(2, 4), [1], ()),
        (torch.zeros(1, 4), [5], ()),
        (torch.zeros(1, 4), [1], (0, 3)),
        (torch.zeros(1, 4), [2], (0, 4)),
        (torch.zeros(1, 4), [2], (1, 1)),
        (torch.zeros(1, 4, dtype=torch.float64), [2], ()),
        (torch.zeros(4), [2], ()),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(scores: torch.Tensor, counts: list[int], forced: Sequence[int]) -> None:
    with pytest.raises(ValueError):
        select_windows(scores, counts, forced=forced)
