"""RULER's own scores (Hsieh et al. 2024, arXiv:2404.06654; NVIDIA/RULER, scripts/eval): substrings in any case."""

from __future__ import annotations

import re
from collections.abc import Sequence

_CONTROL = re.compile(r"[\x00-\x1f]")


def ruler_all(said: str, expected: Sequence[str]) -> float:
    """string_match_all: 100 × the share of the expected strings that occur. For all tasks but qa."""
    found = _found(said, expected)
    return 100.0 * sum(found) / len(found)


def ruler_any(said: str, expected: Sequence[str]) -> float:
    """string_match_part: 100 where one of the expected strings occurs. For qa, whose strings are alternatives."""
    return 100.0 * max(_found(said, expected))


def _found(said: str, expected: Sequence[str]) -> list[bool]:
    """As RULER prepares an answer: control characters become line ends, edges are stripped."""
    text = _CONTROL.sub("\n", said).strip().lower()
    return [one.lower() in text for one in expected]
