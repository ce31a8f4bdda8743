"""The table of suites: what each method scored, for how many bytes, beside the full cache."""

from __future__ import annotations

from collections.abc import Sequence

from windowkv_service.quality.result import Result
from windowkv_service.quality.summary import (
    Row,
    by,
    mean_ratio,
    mean_score,
    rows,
    suite_mean,
    worst_suite,
)
from windowkv_service.quality.tables import markdown

NONE = "–"


def overview(results: Sequence[Result]) -> list[str]:
    """results: of one visibility."""
    suites = list(by(results, lambda result: result.suite))
    head = [
        "method",
        "kept",
        "entry",
        "answering",
        "tails",
        *suites,
        "mean",
        "of full",
        "worst suite of full",
    ]
    by_row = rows(results)
    full = next((found for row, found in by_row.items() if row.method == "full"), [])
    return markdown.table(head, (_line(row, found, suites, full) for row, found in by_row.items()))


def _line(row: Row, results: Sequence[Result], suites: Sequence[str], full: Sequence[Result]) -> list[str]:
    found = by(results, lambda result: result.suite)
    scores = [markdown.score(mean_score(found[suite])) if suite in found else NONE for suite in suites]
    return [
        *markdown.arm(row),
        f"{mean_ratio(results, lambda one: one.entry_bytes_ratio):.3f}",
        f"{mean_ratio(results, lambda one: one.stored_bytes_ratio):.3f}",
        f"{mean_ratio(results, lambda one: one.tail_bytes_ratio):.3f}",
        *scores,
        markdown.score(suite_mean(results)),
        *_beside_full(results, full),
    ]


def _beside_full(results: Sequence[Result], full: Sequence[Result]) -> list[str]:
    """The shares of the full cache's scores, on the tasks that both were asked: all of them, but in a run that was
    interrupted."""
    asked = {result.suite_task for result in results}
    reference = [result for result in full if result.suite_task in asked]
    both = {result.suite_task for result in reference}
    compared = [result for result in results if result.suite_task in both]
    worst = worst_suite(compared, reference)
    if worst is None:
        return [NONE, NONE]
    share = suite_mean(compared).mean / suite_mean(reference).mean
    return [f"{share:.1%}", NONE if results is full else f"{worst.share:.1%} {worst.suite}"]
