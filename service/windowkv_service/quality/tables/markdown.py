"""Markdown's tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from windowkv_service.quality.summary import Row, Score


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> list[str]:
    """The first column to the left, numbers to the right."""
    return [line(head), "|---|" + "---:|" * (len(head) - 1), *map(line, lines)]


def line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def arm(row: Row) -> list[str]:
    return [row.method, f"{row.kept_ratio:g}"]


def score(one: Score) -> str:
    return f"{one.mean:.1f} ({one.low:.0f}–{one.high:.0f})"
