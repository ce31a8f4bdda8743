"""All tables of a run, and the page that shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from windowkv_service.quality.result import Result
from windowkv_service.quality.summary import by
from windowkv_service.quality.tables.breakdown import BREAKDOWNS
from windowkv_service.quality.tables.overview import overview

HEADING = "## Tables\n"

COUNTED = """\
Scores are 0 … 100, with 95 % confidence intervals: percentile bootstraps over documents; of a mean over tasks or
suites, the tasks' intervals added in squares. single, niah, reuse: answers that are exactly right. ruler: the share of
the expected parts that was said. longbench and ruler-files: their own metrics. Every task of a suite weighs the same,
and so does every suite in the mean. *Of full*: the share of the full cache's mean; *worst suite of full*: the suite
where that share is least.

Bytes are shares of the full cache, counted by the service. *Kept*: what was asked for. *Entry*: all that the cache held
on the device between questions, with whatever finds windows for a question. *Answering*: all that the device held of
the prompt while answering. *Tails*: the tokens behind the cached prompt, the answer's and a hidden question's; in no
other number."""


def render(results: Sequence[Result], facts: Mapping[str, object]) -> str:
    """The facts of the run, then for each visibility of the question the suites and what stands behind them."""
    lines = [f"{key}: {value}  " for key, value in facts.items()]
    lines += ["", COUNTED]
    if cut := sum(result.cut for result in results):
        lines += [
            "",
            f"{cut} of {sum(result.samples for result in results)} answers are to prompts without their middle.",
        ]
    for question, found in by(results, lambda result: result.question).items():
        lines += ["", f"### Question {question}", "", *overview(found)]
        for breakdown in BREAKDOWNS:
            if table := breakdown.table(found):
                lines += ["", f"#### Question {question}: {breakdown.title}", "", *table]
    return "\n".join(lines) + "\n"


def insert(page: Path, tables: str) -> None:
    """Puts the tables under the page's heading, in place of what stood there. Raises ValueError without the heading."""
    before, heading, _ = page.read_text(encoding="utf-8").partition(HEADING)
    if not heading:
        raise ValueError(f"{page} has no line {HEADING.strip()!r}")
    page.write_text(f"{before}{heading}\n{tables}", encoding="utf-8")
