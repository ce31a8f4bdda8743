"""Means of results, and what is lost to the full cache."""

from __future__ import annotations

from dataclasses import replace

import pytest

from windowkv_service.quality.arm import Arm, Visibility
from windowkv_service.quality.method import Method
from windowkv_service.quality.reply import Reply
from windowkv_service.quality.result import summarise
from windowkv_service.quality.summary import mean_ratio, mean_score, suite_mean, worst_suite

ARM = Arm(Method("windowkv"), 0.12, Visibility.HIDDEN)


def reply(score: float) -> Reply:
    return Reply(
        "amber",
        score,
        entry_bytes=40,
        device_bytes=210,
        tail_bytes=15,
        full_bytes=1000,
        fidelity=0.75,
        is_cut=False,
    )


def test_a_result_is_made_of_all_answers() -> None:
    result = summarise("single/1000", ARM, [[reply(100.0), reply(0.0)], [reply(100.0), reply(100.0)]])
    assert (result.score, result.samples, result.documents) == (75.0, 4, 2)
    assert (result.entry_bytes_ratio, result.stored_bytes_ratio, result.tail_bytes_ratio) == (
        0.04,
        0.21,
        0.015,
    )
    assert (result.fidelity, result.cut) == (0.75, 0)
    assert result.ci_low <= result.score <= result.ci_high


HALF = replace(summarise("single/1000", ARM, [[reply(50.0)]]), ci_low=44.0, ci_high=58.0)
NIAH = [
    replace(HALF, suite_task=f"niah/1000/{depth}", score=score) for depth, score in ((0, 50.0), (25, 100.0))
]


def test_a_suite_with_many_tasks_weighs_no_more_than_another() -> None:
    assert suite_mean([HALF, *NIAH]).mean == (50.0 + 75.0) / 2


def test_the_interval_of_a_mean_of_independent_tasks_is_narrower_than_theirs() -> None:
    """Distances of 6 below and 8 above, in squares: 6 / sqrt(2) and 8 / sqrt(2)."""
    mean, low, high = mean_score([HALF, replace(HALF, suite_task="single/2000")])
    assert (mean, low, high) == (50.0, pytest.approx(50 - 6 / 2**0.5), pytest.approx(50 + 8 / 2**0.5))


def test_bytes_are_averaged_over_suites_too() -> None:
    doubled = [replace(one, stored_bytes_ratio=0.42) for one in NIAH]
    assert mean_ratio([HALF, *doubled], lambda one: one.stored_bytes_ratio) == pytest.approx(
        (0.21 + 0.42) / 2
    )


def test_the_worst_suite_is_the_one_that_lost_most_of_the_full_cache_score() -> None:
    full = [replace(HALF, score=100.0), *(replace(one, score=75.0) for one in NIAH)]
    worst = worst_suite([HALF, *NIAH], full)
    assert worst is not None and (worst.suite, worst.share) == ("single", 0.5)


def test_a_suite_that_the_full_cache_cannot_answer_compares_nothing() -> None:
    assert worst_suite([HALF], [replace(HALF, score=0.0)]) is None
