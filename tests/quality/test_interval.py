"""How sure a mean is."""

from __future__ import annotations

import random

import pytest

from windowkv_service.quality.interval import bootstrap


def test_the_interval_is_the_same_every_time_and_holds_the_mean() -> None:
    scores = [[100.0, 0.0], [100.0, 100.0], [0.0, 0.0], [100.0, 0.0]]
    low, high = bootstrap(scores)
    assert (low, high) == bootstrap(scores)
    assert 0.0 <= low < 50.0 < high <= 100.0


def test_answers_on_one_document_are_not_taken_for_independent() -> None:
    draw = random.Random(0)
    documents = [[100.0 * draw.randrange(2)] * 10 for _ in range(12)]
    answers = [[score] for document in documents for score in document]
    (low, high), (narrow_low, narrow_high) = bootstrap(documents), bootstrap(answers)
    assert high - low > 2 * (narrow_high - narrow_low)


def test_the_interval_of_many_coins_is_the_normal_one() -> None:
    draw = random.Random(1)
    coins = [[100.0 * draw.randrange(2)] for _ in range(1000)]
    low, high = bootstrap(coins)
    assert high - low == pytest.approx(2 * 1.96 * 50 / 1000**0.5, rel=0.1)


def test_all_right_leaves_the_interval_no_width() -> None:
    assert bootstrap([[100.0], [100.0]]) == (100.0, 100.0)
