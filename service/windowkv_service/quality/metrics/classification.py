"""LongBench's score where the answer is one of the data set's classes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Classification:
    """1 / the number of classes that were named, where the right one is among them, else 0.

    A class whose name is a part of the right one's name is not counted as named. (LongBench's script skips some of
    those by removing from the list that it walks through; it differs where two such names follow each other.)
    """

    classes: tuple[str, ...]

    def __call__(self, said: str, reference: str) -> float:
        named = [
            name for name in self.classes if name in said and (name == reference or name not in reference)
        ]
        return 1.0 / len(named) if reference in named else 0.0
