"""What stands behind a suite's one number: its tasks, lengths or groups as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from windowkv_service.quality.result import Result
from windowkv_service.quality.suites.longbench import group_of
from windowkv_service.quality.suites.niah import cell
from windowkv_service.quality.summary import by, mean_score, rows
from windowkv_service.quality.tables import markdown


@dataclass(frozen=True)
class Breakdown:
    """title: of the table. suites: whose results it is made of. column: where a result belongs; a column's score is the
    mean over its results. with_intervals: whether there is room for them."""

    title: str
    suites: tuple[str, ...]
    column: Callable[[Result], str]
    with_intervals: bool = True

    def table(self, results: Sequence[Result]) -> list[str]:
        """results: of one visibility. Nothing where none of them is of these suites, or there is but one column."""
        found = [result for result in results if result.suite in self.suites]
        columns = list(by(found, self.column))
        if len(columns) < 2:
            return []
        return markdown.table(["method", "kept", *columns], self._lines(found, columns))

    def _lines(self, results: Sequence[Result], columns: Sequence[str]) -> Iterator[list[str]]:
        for row, found in rows(results).items():
            cells = by(found, self.column)
            yield [*markdown.arm(row), *(self._cell(cells.get(column, [])) for column in columns)]

    def _cell(self, results: Sequence[Result]) -> str:
        if not results:
            return "–"
        score = mean_score(results)
        return markdown.score(score) if self.with_intervals else f"{score.mean:.0f}"


def _cell_of_grid(result: Result) -> str:
    num_tokens, depth = cell(result.suite_task)
    return f"{num_tokens}: {depth} %"


def _task_of_ruler(result: Result) -> str:
    return result.suite_task.split("/")[1]


def _length(result: Result) -> str:
    return f"{result.suite_task.split('/')[2]} tokens"


BREAKDOWNS = (
    Breakdown("RULER's tasks, mean over lengths", ("ruler",), _task_of_ruler),
    Breakdown("RULER by document length, mean over tasks", ("ruler",), _length),
    Breakdown("RULER's files, mean over lengths", ("ruler-files",), _task_of_ruler),
    Breakdown("LongBench by task group", ("longbench",), lambda result: group_of(result.suite_task)),
    Breakdown("single and reuse", ("single", "reuse"), lambda result: result.suite_task),
    Breakdown("niah: tokens and depth of the fact", ("niah",), _cell_of_grid, with_intervals=False),
)
