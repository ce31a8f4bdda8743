"""LongBench's score where the answer is a number: counting passages, and naming the passage that was meant."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"\d+")


def number_share(said: str, reference: str) -> float:
    """The share of the numbers said that are the reference's first one ("7", "Paragraph 7", "段落7")."""
    wanted, numbers = _NUMBER.search(reference), _NUMBER.findall(said)
    if wanted is None or not numbers:
        return 0.0
    return numbers.count(wanted[0]) / len(numbers)
