"""Scores, their intervals, and what is counted beside them."""

from __future__ import annotations

import random

import pytest

from windowkv_service.quality.arm import Arm, Visibility
from windowkv_service.quality.asking import Reply
from windowkv_service.quality.interval import bootstrap
from windowkv_service.quality.method import Method
from windowkv_service.quality.result import summarise
from windowkv_service.quality.scoring import exact
from windowkv_service.quality.suites import find_tasks


def reply(score: float) -> Reply:
    return Reply("amber", score, entry_bytes=40, device_bytes=110, tail_bytes=30, full_bytes=1000)


@pytest.mark.parametrize(
    ("said", "score"),
    [(" amber", 100.0), ("amber \n", 100.0), ("amber\nQuestion", 100.0), ("ambers", 0.0), ("", 0.0)],
)
def test_only_the_whole_answer_counts(said: str, score: float) -> None:
    assert exact(said, "amber") == score


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


def test_a_result_is_made_of_all_answers() -> None:
    (task,) = find_tasks(["single/1000"])
    arm = Arm(Method("windowkv"), 0.12, Visibility.HIDDEN)
    result = summarise(task, arm, [[reply(100.0), reply(0.0)], [reply(100.0), reply(100.0)]])
    assert (result.score, result.samples, result.stored_bytes_ratio) == (75.0, 4, 0.11)
    assert (result.entry_bytes_ratio, result.answer_bytes_ratio) == (0.04, 0.14)
    assert result.ci_low <= result.score <= result.ci_high
