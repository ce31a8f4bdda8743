"""Only the whole answer counts."""

from __future__ import annotations

from collections.abc import Sequence


def exact(said: str, expected: Sequence[str]) -> float:
    """100 where the first line of what was said is one of the expected answers, else 0."""
    first_line = said.strip().partition("\n")[0].strip()
    return 100.0 if first_line in expected else 0.0
