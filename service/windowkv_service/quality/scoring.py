"""When an answer counts."""

from __future__ import annotations


def exact(said: str, expected: str) -> float:
    """100 where the first line of what was said is the expected answer, else 0."""
    first_line = said.strip().partition("\n")[0].strip()
    return 100.0 if first_line == expected else 0.0
