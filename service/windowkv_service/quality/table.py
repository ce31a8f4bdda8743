"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import fmean
from typing import NamedTuple

from windowkv_service.quality.result import Result
from windowkv_service.quality.suites.niah import DEPTHS, cell

COUNTED = (
    "Scores: percent of answers that are exactly right, with 95 % confidence intervals (bootstrap over documents). "
    "Kept: the share asked for. Entry: what the cache held on the device between questions, blocks and leader keys, "
    "as a share of the full cache. Answering: all that the device held of the prompt while answering, the cache's own "
    "blocks and the answer's, each once, and leader keys. Tails (the question's and the answer's own tokens) are a "
    "column of the files alone. Mean: over suites, not over columns."
)


Cell = tuple[int, int]  # document tokens, depth in percent


class Row(NamedTuple):
    """What makes up one line of a table: an arm's results, all tasks."""

    method: str
    kept_ratio: float


def render(results: Sequence[Result], facts: Mapping[str, object]) -> str:
    """The facts of the run, then one table per visibility of the question, then the grid of niah."""
    lines = [f"{key}: {value}  " for key, value in facts.items()]
    lines += ["", COUNTED]
    for question in dict.fromkeys(result.question for result in results):
        shown = [result for result in results if result.question == question]
        lines += ["", f"### Question {question}", "", *_table(shown)]
    return "\n".join([*lines, *_grid_tables(results)]) + "\n"


def rows(results: Iterable[Result]) -> dict[Row, list[Result]]:
    """The results of one visibility, by arm."""
    found: dict[Row, list[Result]] = {}
    for result in results:
        found.setdefault(Row(result.method, result.kept_ratio), []).append(result)
    return found


def suite_mean(results: Iterable[Result]) -> float:
    """The mean over suites of the mean over each suite's tasks."""
    by_suite: dict[str, list[float]] = {}
    for result in results:
        by_suite.setdefault(result.suite, []).append(result.score)
    return fmean(fmean(scores) for scores in by_suite.values())


def _table(results: Sequence[Result]) -> list[str]:
    by_row = rows(results)
    full = next((suite_mean(found) for row, found in by_row.items() if row.method == "full"), None)
    columns = list(dict.fromkeys(_column(result) for result in results))
    head = ["method", "kept", "entry", "answering", *columns, "mean", "of full"]
    lines = [_line(head), "|---|" + "---:|" * (len(head) - 1)]
    for row, found in by_row.items():
        mean = suite_mean(found)
        share = f"{mean / full:.1%}" if full else "–"
        cells = [_score([result for result in found if _column(result) == column]) for column in columns]
        ratios = [_mean(found, lambda one: one.entry_bytes_ratio), _mean(found, _stored)]
        kept = f"{row.kept_ratio:g}"
        lines.append(
            _line([row.method, kept, *(f"{ratio:.3f}" for ratio in ratios), *cells, f"{mean:.1f}", share])
        )
    return lines


def _column(result: Result) -> str:
    """A task has a column of its own, but for niah's cells, which have grids."""
    return "/".join(result.suite_task.split("/")[:2])


def _score(results: Sequence[Result]) -> str:
    if len(results) == 1:
        (only,) = results
        return f"{only.score:.1f} ({only.ci_low:.0f}–{only.ci_high:.0f})"
    return f"{_mean(results, lambda one: one.score):.1f}" if results else "–"


def _stored(result: Result) -> float:
    return result.stored_bytes_ratio


def _mean(results: Sequence[Result], value: Callable[[Result], float]) -> float:
    return fmean(value(result) for result in results)


def grids(results: Iterable[Result]) -> dict[str, dict[Cell, float]]:
    """Per arm, what niah's cells scored."""
    found: dict[str, dict[Cell, float]] = {}
    for result in results:
        if result.suite == "niah":
            title = f"{result.method}, kept {result.kept_ratio:g}, question {result.question}"
            found.setdefault(title, {})[cell(result.suite_task)] = result.score
    return found


def _grid_tables(results: Sequence[Result]) -> list[str]:
    """The grid of niah, a table for each document length: arms down, depths across."""
    lines: list[str] = []
    found = grids(results)
    for num_tokens in sorted({num_tokens for grid in found.values() for num_tokens, _ in grid}):
        lines += ["", f"### niah, {num_tokens} tokens, by depth of the fact", ""]
        lines += [_line(["arm", *(f"{depth} %" for depth in DEPTHS)]), "|---|" + "---:|" * len(DEPTHS)]
        for title, grid in found.items():
            scores = [grid.get((num_tokens, depth)) for depth in DEPTHS]
            lines.append(_line([title, *("–" if one is None else f"{one:.0f}" for one in scores)]))
    return lines


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
