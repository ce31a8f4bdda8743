"""What every kind of generated document has in common: the contract, and words that fill a document to its length."""

import random
from typing import Protocol

from windowkv_service.model.builtin.documents.facts import Split
from windowkv_service.model.builtin.documents.question import Document
from windowkv_service.model.builtin.documents.single_fact import count_tokens


class Task(Protocol):
    """A kind of document. The same state of `rng` gives the same document."""

    def draw(self, rng: random.Random, split: Split) -> Document:
        """A document of this kind that states what belongs to `split` only."""


class TaskMaker(Protocol):
    """Makes a task of one kind at a document length."""

    def __call__(self, num_tokens: int, num_questions: int = 1) -> Task:
        """num_tokens: length of the documents; num_questions: at most so many questions on each."""


def room_for(num_tokens: int, sentences: list[str]) -> int:
    """How many more tokens fit a log of `num_tokens` that has these sentences; its days take a twentieth."""
    return int(0.95 * num_tokens) - count_tokens(" ".join(sentences))
