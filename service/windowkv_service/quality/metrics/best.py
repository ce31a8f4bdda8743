"""A similarity to one reference as a metric over several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from windowkv_service.quality.metrics.base import Similarity


@dataclass(frozen=True)
class Best:
    """100 × the similarity to the reference that is nearest. is_first_line: only the first line said is looked at, as
    LongBench does where models go on with an example of their own."""

    similarity: Similarity
    is_first_line: bool = False

    def __call__(self, said: str, expected: Sequence[str]) -> float:
        looked_at = said.lstrip("\n").partition("\n")[0] if self.is_first_line else said
        return 100.0 * max(self.similarity(looked_at, reference) for reference in expected)
