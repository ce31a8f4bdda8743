"""From measured candidates to the profile to keep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from offline.measurement import Measurement
from offline.result import Result
from offline.trial import Trial

GOOD_ENOUGH = 0.99  # of the full cache's score: among leaders as good as this the fewest win
CLEARLY_BETTER = 0.005  # mean score; an option leaves its safer or cheaper value only for more than this

# What is tried of each option of the profile, the safest and cheapest first.
OPTIONS: dict[str, tuple[object, ...]] = {
    "vote_tokens": (16, 8, 4, 2, 1),
    "keep_last_windows": (1, 0, 2),
    "keep_first": (True, False),
    "top_p": (None, 8, 4, 2, 1),
    "index_bits": (4, 8),
}


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
        for result in measurement.measure(_changed(best, option, values)):
            yield result
            gain, error = result.gain(best)
            if gain > max(CLEARLY_BETTER, error):
                best = result
    kept = Result("kept", best.chooser, best.tallies)
    yield kept


def _changed(best: Result, option: str, values: Sequence[object]) -> dict[str, Trial]:
    trial = best.chooser
    assert isinstance(trial, Trial)
    changed = {}
    for value in values:
        if getattr(trial.profile, option) != value:
            change: dict[str, Any] = {option: value}
            changed[f"{option} {value}"] = replace(trial, profile=replace(trial.profile, **change))
    return changed
