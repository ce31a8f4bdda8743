"""Tasks of documents that are generated anew for every seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

from windowkv_service.model.builtin.documents import Document, Question, Split, question_suffix
from windowkv_service.quality.case import Asked, Case
from windowkv_service.quality.metrics import Metric, exact


class Source(Protocol):
    """A generator of the built-in model's documents."""

    def draw(self, rng: random.Random, split: Split) -> Document: ...


@dataclass(frozen=True)
class Generated:
    """metric: exact compares with the whole answer, anything else with its parts. max_tokens: of an answer."""

    name: str
    source: Source
    metric: Metric = exact
    max_tokens: int = 16
    is_conversation: bool = False

    @property
    def size(self) -> None:
        return None

    def case(self, seed: int, number: int) -> Case:
        """Another one for every seed, task and number. Pairs of names and values are held out: nothing here was
        trained on."""
        rng = random.Random(f"{seed}/{self.name}/{number}")
        document = self.source.draw(rng, Split.HELD_OUT)
        questions = tuple(self._asked(question) for question in document.questions)
        return Case(document.text, questions, self.is_conversation)

    def _asked(self, question: Question) -> Asked:
        expected = (question.answer,) if self.metric is exact else question.parts
        return Asked(question_suffix(question.text), expected, self.metric, self.max_tokens)


def num_facts(num_tokens: int) -> int:
    """A dozen facts and one more per 100 tokens, as in the built-in model's card."""
    return 12 + num_tokens // 100
