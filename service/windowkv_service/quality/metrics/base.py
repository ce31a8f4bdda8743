"""The contracts of metrics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Metric(Protocol):
    """How well an answer did, 0 … 100, in view of all that was expected."""

    def __call__(self, said: str, expected: Sequence[str], /) -> float: ...


class Similarity(Protocol):
    """How near an answer is to one reference, 0 … 1."""

    def __call__(self, said: str, reference: str, /) -> float: ...
