"""Tasks of cases that stand in files."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from windowkv_service.quality.case import Asked, Case


@dataclass(frozen=True)
class Filed:
    """A seed is an order of the cases: fewer samples than there are cases are a choice by lot."""

    name: str
    cases: tuple[Case, ...]

    @property
    def size(self) -> int:
        return len(self.cases)

    def case(self, seed: int, number: int) -> Case:
        order = random.Random(f"{seed}/{self.name}").sample(range(self.size), self.size)
        return self.cases[order[number]]


def by_document(asked: Iterable[tuple[str, Asked]]) -> tuple[Case, ...]:
    """Questions on the same document make one case, so that it is cached once and its answers are not taken for
    independent."""
    found: dict[str, list[Asked]] = {}
    for document, question in asked:
        found.setdefault(document, []).append(question)
    return tuple(Case(document, tuple(questions)) for document, questions in found.items())
