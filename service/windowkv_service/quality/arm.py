"""One way of caching and asking that is measured: a method, a kept ratio, and when the question is known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from windowkv_client import Retention
from windowkv_service.quality.method import Method


class Visibility(StrEnum):
    """HIDDEN: the document is cached before anybody asks. VISIBLE: the cached prompt ends with the question."""

    HIDDEN = "hidden"
    VISIBLE = "visible"


@dataclass(frozen=True)
class Arm:
    """kept_ratio is 1 for what drops nothing."""

    method: Method
    kept_ratio: float
    question: Visibility

    @property
    def is_visible(self) -> bool:
        return self.question is Visibility.VISIBLE


def arms(
    methods: Sequence[Method], kept_ratios: Sequence[float], questions: Iterable[Visibility]
) -> tuple[Arm, ...]:
    """All of them, each once, in the order of questions, methods, ratios."""
    found = [
        Arm(method, 1.0 if method.is_full else ratio, question)
        for question in questions
        for method in methods
        for ratio in kept_ratios
    ]
    return tuple(dict.fromkeys(found))


def in_turn(every: Iterable[Arm]) -> list[Arm]:
    """The order to run them in on one document. What retains all windows comes first, on a device that holds nothing of
    the document yet: its answers then fetch what they lack, as they do in service. Then the full cache, whose blocks
    spare the others the prefill."""
    return sorted(every, key=lambda arm: (arm.method.retains is Retention.SELECTED, not arm.method.is_full))
