"""How a chooser did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import sqrt
from statistics import mean, variance
from typing import NamedTuple

from offline.chooser import Chooser
from offline.development import GROUPS


class Tally(NamedTuple):
    """One answer. score: share of the expected parts. size_ratio: bytes held over those of the full cache.

    num_listened: passes that only listened. num_said: tokens of the answer.
    """

    score: float
    fidelity: float
    size_ratio: float
    num_listened: int
    num_said: int


@dataclass
class Result:
    """tallies: kept ratio → task → document → its answers. Scores of several tasks are means of the tasks' means."""

    name: str
    chooser: Chooser
    tallies: dict[float, dict[str, dict[int, list[Tally]]]] = field(default_factory=dict)

    def add(self, ratio: float, task: str, document: int, tally: Tally) -> None:
        self.tallies.setdefault(ratio, {}).setdefault(task, {}).setdefault(document, []).append(tally)

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(self.tallies)

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self._first)

    @property
    def mean_score(self) -> float:
        return mean(self.score(ratio) for ratio in self.ratios)

    @property
    def num_answers(self) -> int:
        """Per kept ratio."""
        return sum(len(answers) for documents in self._first.values() for answers in documents.values())

    def score(self, ratio: float) -> float:
        return mean(self.by_task(ratio).values())

    def by_task(self, ratio: float) -> dict[str, float]:
        return {
            task: mean(tally.score for answers in documents.values() for tally in answers)
            for task, documents in self.tallies[ratio].items()
        }

    def by_group(self, ratio: float) -> dict[str, float]:
        scores = self.by_task(ratio)
        grouped = {
            group: [scores[task] for task in tasks if task in scores] for group, tasks in GROUPS.items()
        }
        return {group: mean(of_group) for group, of_group in grouped.items() if of_group}

    def worst(self, ratio: float) -> tuple[str, float]:
        return min(self.by_task(ratio).items(), key=lambda each: each[1])

    def mean_of(self, ratio: float, what: Callable[[Tally], float]) -> float:
        """Over all answers."""
        documents = [each for task in self.tallies[ratio].values() for each in task.values()]
        return mean(what(tally) for answers in documents for tally in answers)

    def gain(self, base: Result) -> tuple[float, float]:
        """(mean score less that of base, its standard error), over the kept ratios both have.

        Paired: both answered the same questions. Documents are the samples; tasks are what the mean is over.
        """
        ratios = [ratio for ratio in self.ratios if ratio in base.ratios]
        gains, errors = [], []
        for task in self._first:
            by_document = [self._gain(base, ratios, task, document) for document in self._first[task]]
            gains.append(mean(by_document))
            errors.append(variance(by_document) / len(by_document) if len(by_document) > 1 else 0.0)
        return mean(gains), sqrt(sum(errors)) / len(gains)

    def _gain(self, base: Result, ratios: Sequence[float], task: str, document: int) -> float:
        return mean(
            mine.score - theirs.score
            for ratio in ratios
            for mine, theirs in zip(
                self.tallies[ratio][task][document], base.tallies[ratio][task][document], strict=True
            )
        )

    @property
    def _first(self) -> dict[str, dict[int, list[Tally]]]:
        return next(iter(self.tallies.values()))
