"""Means over results: of a suite's tasks, and over suites."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from math import sqrt
from statistics import fmean
from typing import NamedTuple

from windowkv_service.quality.result import Result


class Score(NamedTuple):
    """A mean with its 95 % interval."""

    mean: float
    low: float
    high: float


class Row(NamedTuple):
    """What makes up one line of a table: an arm's results, all tasks."""

    method: str
    kept_ratio: float


class Worst(NamedTuple):
    """The suite that lost most of the full cache's score."""

    share: float
    suite: str


def rows(results: Iterable[Result]) -> dict[Row, list[Result]]:
    """The results of one visibility, by arm."""
    found: dict[Row, list[Result]] = {}
    for result in results:
        found.setdefault(Row(result.method, result.kept_ratio), []).append(result)
    return found


def by(results: Iterable[Result], key: Callable[[Result], str]) -> dict[str, list[Result]]:
    """The results under each name that the key gives, names in the order of their first result."""
    found: dict[str, list[Result]] = {}
    for result in results:
        found.setdefault(key(result), []).append(result)
    return found


def mean_score(results: Sequence[Result]) -> Score:
    """Each task weighs the same, however many answers it has."""
    return _mean([Score(result.score, result.ci_low, result.ci_high) for result in results])


def suite_mean(results: Iterable[Result]) -> Score:
    """Each suite weighs the same, however many tasks it has."""
    return _mean([mean_score(found) for found in by(results, lambda result: result.suite).values()])


def mean_ratio(results: Iterable[Result], ratio: Callable[[Result], float]) -> float:
    """The mean over suites of a share of bytes."""
    suites = by(results, lambda result: result.suite).values()
    return fmean(fmean(map(ratio, found)) for found in suites)


def worst_suite(results: Iterable[Result], full: Iterable[Result]) -> Worst | None:
    """Of the suites that both have and where the full cache scores at all."""
    references = by(full, lambda result: result.suite)
    found = by(results, lambda result: result.suite)
    whole = {suite: mean_score(of_full).mean for suite, of_full in references.items() if suite in found}
    shares = [
        Worst(mean_score(found[suite]).mean / score, suite) for suite, score in whole.items() if score > 0
    ]
    return min(shares, default=None)


def _mean(scores: Sequence[Score]) -> Score:
    """Of independent means: the distances to the ends of their intervals add up in squares."""
    mean, number = fmean(score.mean for score in scores), len(scores)
    below = sqrt(sum((score.mean - score.low) ** 2 for score in scores)) / number
    above = sqrt(sum((score.high - score.mean) ** 2 for score in scores)) / number
    return Score(mean, mean - below, mean + above)
