"""Tables of answers with their fidelity."""

from __future__ import annotations

import pytest
from fidelity_table import Answered, auc, render


def answered(
    number: int, kept_ratio: float, fidelity: float, score: float, min_fidelity: float | None = None
) -> Answered:
    return Answered("single", number, 0, kept_ratio, min_fidelity, fidelity, score, kept_ratio - 0.01)


FULL = [answered(number, 1.0, 1.0, score) for number, score in enumerate([1.0, 1.0, 1.0, 0.0])]
KEPT = [
    answered(number, 0.06, fidelity, score)
    for number, (fidelity, score) in enumerate([(0.95, 1.0), (0.4, 0.0), (0.2, 0.5), (0.97, 0.0)])
]
PROMISED = [answered(number, 0.06, 0.9, 1.0, min_fidelity=0.9) for number in range(4)]


def line(page: str, start: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(start))


def test_answers_count_where_the_full_cache_is_right() -> None:
    page = render([*FULL, *KEPT, *PROMISED], {"seed": 1})
    assert line(page, "seed:") == "seed: 1  "
    assert (
        line(page, "| 0.95 to 0.99") == "| 0.95 to 0.99 | 100 (1) | 100 (1) |"
    )  # not the fourth question's 0
    assert line(page, "| 0.3 to 0.5") == "| 0.3 to 0.5 | 0 (1) | 0 (1) |"
    assert line(page, "| AUC") == "| AUC | 1.00 | 1.00 |"


def test_scores_and_costs_are_means_over_all_questions() -> None:
    page = render([*FULL, *KEPT, *PROMISED], {})
    assert line(page, "| full cache | 75, 1.00") == "| full cache | 75, 1.00 | 75, 1.00 |"
    assert line(page, "| 0.06 |") == "| 0.06 | 38, 0.63 | 38, 0.63 |"
    assert line(page, "| none |") == "| none | 38, 0.050 | 38, 0.050 |"
    assert line(page, "| 0.9 |") == "| 0.9 | 100, 0.050 | 100, 0.050 |"


def test_auc_is_the_share_of_pairs_in_order() -> None:
    pairs = [(0.9, 1.0), (0.5, 1.0), (0.5, 0.0), (0.1, 0.0)]
    assert auc([answered(0, 0.1, fidelity, score) for fidelity, score in pairs]) == pytest.approx(3.5 / 4)
    assert auc(FULL[:3]) is None
