"""Each expected part that was said counts, wherever it stands."""

from __future__ import annotations

import re
from collections.abc import Sequence


def parts(said: str, expected: Sequence[str]) -> float:
    """100 × the share of the parts found in what was said, as whole words and in their own case.

    RULER's string_match_all (ruler_match.py), but that "amber" is not found in "chambers". As there, what is said
    beside the parts costs nothing; the length of an answer is bounded by its task.
    """
    text = " ".join(said.split())
    return 100.0 * sum(_has(text, part) for part in expected) / len(expected)


def _has(text: str, part: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None
