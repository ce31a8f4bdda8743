"""From measured candidates to the profile to keep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from offline.measurement import Measurement
from offline.result import Result
from offline.trial import Trial
from windowkv_service.selection import QuestionProfile

GOOD_ENOUGH = 0.99  # of the full cache's score: among leaders as good as this the fewest win
CLEARLY_WORSE = (
    0.005  # mean score; the first value of an option that is not clearly worse than the best is kept
)

# What is tried of each option of the profile, the safest and cheapest first.
OPTIONS: Mapping[str, tuple[object, ...]] = {
    # What always stays comes first: where few windows fit, it decides what the others can show.
    "keep_last_windows": (1, 0, 2),
    "keep_first": (True, False),
    "vote_tokens": (16, 8, 4, 2, 1),
    "reselect_every": (0, 8, 4, 2, 1),
    "top_p": (None, 8, 4, 2, 1),
    "index_bits": (4, 8),
}


def at_its_sharpest(profile: QuestionProfile) -> QuestionProfile:
    """How leaders are compared: one token looks something up, every token of an answer may, and all that stays is the
    first window, so that small budgets are theirs to spend."""
    return replace(profile, vote_tokens=1, reselect_every=1, keep_last_windows=0)


def best_leaders(results: Sequence[Result], full: Result) -> Result:
    """The fewest leaders among those as good as the full cache; else the best score; then the highest fidelity."""

    def worth(result: Result) -> tuple[float, int, float]:
        fidelity = sum(result.mean_of(ratio, lambda tally: tally.fidelity) for ratio in result.ratios)
        return (
            min(result.mean_score, GOOD_ENOUGH * full.mean_score),
            -len(result.chooser.layers),
            result.mean_score + fidelity / len(result.ratios),
        )

    return max(results, key=worth)


def tune(measurement: Measurement, leaders: Result) -> Iterator[Result]:
    """One option after the other, from the leaders found; the last result is the profile to keep."""
    best = leaders
    for option, values in OPTIONS.items():
        now = getattr(_profile(best), option)
        others = {value: f"{option} {value}" for value in values if value != now}
        changed = {name: _changed(best, option, value) for value, name in others.items()}
        measured = dict(zip(others, measurement.measure(changed), strict=True))
        yield from measured.values()
        best = first_good([best if value == now else measured[value] for value in values])
    yield Result("kept", best.chooser, best.tallies)


def first_good(results: Sequence[Result]) -> Result:
    """The first that is not clearly worse than the best."""
    highest = max(result.mean_score for result in results)
    return next(result for result in results if result.mean_score >= highest - CLEARLY_WORSE)


def _profile(result: Result) -> QuestionProfile:
    assert isinstance(result.chooser, Trial)
    return result.chooser.profile


def _changed(result: Result, option: str, value: object) -> Trial:
    change: dict[str, Any] = {option: value}
    assert isinstance(result.chooser, Trial)
    return replace(result.chooser, profile=replace(result.chooser.profile, **change))
