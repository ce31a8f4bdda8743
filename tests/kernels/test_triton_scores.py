"""score_windows and score_leader_keys in the interpreter, on sizes that hurt."""

from __future__ import annotations

import pytest
import torch
from kernel_cases.scores import TINY, ScoreCase

pytestmark = pytest.mark.usefixtures("on_triton")


@pytest.mark.parametrize("case", TINY, ids=str)
def test_scores_and_mass_follow_the_formulas(case: ScoreCase) -> None:
    case.check(torch.device("cpu"))


def test_windows_that_fit_no_tile_are_refused() -> None:
    case = ScoreCase(num_tokens=600, window_size=512)
    with pytest.raises(ValueError, match="512"):
        case.score(*case.draw(torch.device("cpu")))
