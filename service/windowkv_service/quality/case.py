"""One document and what it is asked."""

from __future__ import annotations

from dataclasses import dataclass

from windowkv_service.model.builtin.documents import answer_text
from windowkv_service.quality.metrics import Metric


@dataclass(frozen=True)
class Asked:
    """A question on a document. text goes right behind the document (or behind earlier turns), and the answer is
    generated right behind it, at most max_tokens long and up to one of stop. metric compares it with expected."""

    text: str
    expected: tuple[str, ...]
    metric: Metric
    max_tokens: int = 16
    stop: tuple[str, ...] = ("\n",)

    def score(self, said: str) -> float:
        """0 … 100."""
        return self.metric(said, self.expected)

    def turn(self, said: str) -> str:
        """What stands in a conversation after this question was answered so, right or wrong."""
        return self.text + answer_text(said.strip())


@dataclass(frozen=True)
class Case:
    """is_conversation: earlier questions and answers stay in the input."""

    document: str
    questions: tuple[Asked, ...]
    is_conversation: bool = False
