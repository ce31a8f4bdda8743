"""Answers with their fidelity, as tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from offline.development import GROUPS

EDGES = (0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # a bin reaches to the next edge, the last one to 1
RIGHT = 0.999  # scores are shares of what was asked for


@dataclass(frozen=True)
class Answered:
    """One answer to a question of a document, both by number. score: share of the expected words, 0 to 1. device_ratio:
    of the full cache's bytes, the most that the device held of the prompt while answering."""

    task: str
    document: int
    question: int
    kept_ratio: float
    min_fidelity: float | None
    fidelity: float
    score: float
    device_ratio: float

    @property
    def place(self) -> tuple[int, int]:
        return self.document, self.question

    @property
    def is_full(self) -> bool:
        return self.kept_ratio == 1.0


Cell = Callable[[Sequence[Answered]], str]


def render(answered: Sequence[Answered], facts: Mapping[str, object]) -> str:
    """The facts of the run and three tables, as Markdown."""
    lines = ["# Fidelity and right answers", "", *(f"{name}: {fact}  " for name, fact in facts.items()), ""]
    known = {each.place for each in answered if each.is_full and each.score > RIGHT}
    compressed = [
        each for each in answered if not each.is_full and each.min_fidelity is None and each.place in known
    ]
    groups = [name for name, tasks in GROUPS.items() if any(each.task in tasks for each in answered)]
    lines += [
        *_predicting(compressed, groups),
        "",
        *_ratios(answered, groups),
        "",
        *_promises(answered, groups),
    ]
    return "\n".join(lines) + "\n"


def auc(answered: Sequence[Answered]) -> float | None:
    """How likely a right answer has the higher fidelity of a right and a wrong one; 0.5 says nothing."""
    right = [each.fidelity for each in answered if each.score > RIGHT]
    wrong = [each.fidelity for each in answered if each.score <= RIGHT]
    if not right or not wrong:
        return None
    return fmean((one > other) + 0.5 * (one == other) for one in right for other in wrong)


def _predicting(answered: Sequence[Answered], groups: Sequence[str]) -> list[str]:
    lines = [
        "## Score by fidelity",
        "",
        "Of the questions that the full cache answers right: mean score in percent of the answers whose fidelity is in",
        "the range, all kept ratios together, and how many they are. AUC: how likely a right answer has the higher",
        "fidelity of a right and a wrong one; 0.5 says nothing.",
        "",
        *_head("fidelity", groups),
    ]
    for low, high in zip(EDGES, (*EDGES[1:], 1.001), strict=True):
        inside = [each for each in answered if low <= each.fidelity < high]
        lines.append(_row(f"{low} to {min(high, 1.0)}", inside, groups, _counted))
    return [*lines, _row("AUC", answered, groups, _auc)]


def _ratios(answered: Sequence[Answered], groups: Sequence[str]) -> list[str]:
    lines = [
        "## Score by kept ratio",
        "",
        "Mean score in percent, mean fidelity.",
        "",
        *_head("kept", groups),
    ]
    for ratio in sorted({each.kept_ratio for each in answered}, reverse=True):
        of = [each for each in answered if each.kept_ratio == ratio and each.min_fidelity is None]
        lines.append(_row("full cache" if ratio == 1.0 else f"{ratio}", of, groups, _score))
    return lines


def _promises(answered: Sequence[Answered], groups: Sequence[str]) -> list[str]:
    ratio = min(each.kept_ratio for each in answered)
    lines = [
        f"## What a promised fidelity gives and costs, at a kept ratio of {ratio}",
        "",
        "Mean score in percent, and what the device held while answering, as a share of the full cache, on average.",
        "",
        *_head("min_fidelity", groups),
    ]
    asked = [each for each in answered if each.kept_ratio == ratio]
    for threshold in [None, *sorted({each.min_fidelity for each in asked if each.min_fidelity is not None})]:
        of = [each for each in asked if each.min_fidelity == threshold]
        lines.append(_row("none" if threshold is None else f"{threshold}", of, groups, _cost))
    return [*lines, _row("full cache", [each for each in answered if each.is_full], groups, _cost)]


def _head(first: str, groups: Sequence[str]) -> list[str]:
    return [f"| {first} | {' | '.join(groups)} | all |", "|---" * (len(groups) + 2) + "|"]


def _row(name: str, answered: Sequence[Answered], groups: Sequence[str], cell: Cell) -> str:
    cells = [[each for each in answered if each.task in GROUPS[group]] for group in groups]
    return f"| {name} | {' | '.join(cell(of) if of else '–' for of in [*cells, answered])} |"


def _counted(answered: Sequence[Answered]) -> str:
    return f"{_percent(answered)} ({len(answered)})"


def _score(answered: Sequence[Answered]) -> str:
    return f"{_percent(answered)}, {fmean(each.fidelity for each in answered):.2f}"


def _cost(answered: Sequence[Answered]) -> str:
    return f"{_percent(answered)}, {fmean(each.device_ratio for each in answered):.3f}"


def _auc(answered: Sequence[Answered]) -> str:
    value = auc(answered)
    return "–" if value is None else f"{value:.2f}"


def _percent(answered: Sequence[Answered]) -> str:
    return f"{100 * fmean(each.score for each in answered):.0f}"
