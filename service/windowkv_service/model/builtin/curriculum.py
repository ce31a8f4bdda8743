"""What training meets and in which order: short documents of all tasks first, the length doubling, all lengths last."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from windowkv_service.model.builtin.documents import ATTRIBUTES, Document, SingleFact, Split, Task, tasks

SINGLE_FACT = "single_fact"
# Tasks whose answers may list their parts in any order.
FREE_ORDER = frozenset({"niah_multivalue", "niah_multiquery", "cwe"})
EMPHASIS = {
    "cwe": 2.0,
    "fwe": 2.0,
    "niah_multivalue": 2.0,
    "niah_multiquery": 2.0,
}  # few answers per document
_MAX_QUESTIONS = 24
_TOKENS_PER_QUESTION = {"niah_multiquery": 100, "niah_multivalue": 40, "niah_multikey_3": 24, "qa_2": 24}


@dataclass(frozen=True)
class Stage:
    """One step of the curriculum.

    lengths: document lengths in tokens, one of them drawn per batch. num_sequences: documents per batch, one number
    per length. kinds: the tasks to draw from. learning_rate falls to `final_share` of itself over `num_steps`; a stage
    ends before that when every task's running accuracy is `pass_accuracy`. terse_ratio: share of the single facts
    asked with the bare name, to let the lookup form first. plants_counting: whether the last layer is made to count
    words before the stage.
    """

    lengths: tuple[int, ...]
    num_sequences: tuple[int, ...]
    learning_rate: float
    num_steps: int
    kinds: tuple[str, ...]
    pass_accuracy: float = 1.1
    terse_ratio: float = 0.0
    final_share: float = 1.0
    plants_counting: bool = False

    def draw_documents(self, rng: random.Random, weights: Mapping[str, float]) -> list[tuple[str, Document]]:
        """One batch of training documents of about equal length, with their tasks' names, drawn by `weights`."""
        choice = rng.randrange(len(self.lengths))
        drawn = rng.choices(self.kinds, [weights[kind] for kind in self.kinds], k=self.num_sequences[choice])
        return [(kind, self._draw_document(rng, kind, self.lengths[choice])) for kind in drawn]

    def _draw_document(self, rng: random.Random, kind: str, length: int) -> Document:
        """A fifth of the documents are shorter, so that short ones are not forgotten."""
        num_tokens = rng.randint(min(32, length), length) if rng.random() < 0.2 else length
        least = _TOKENS_PER_QUESTION.get(kind, 16)
        num_questions = max(1, min(num_tokens // least, _MAX_QUESTIONS))
        return self._task(rng, kind, num_tokens, num_questions).draw(rng, Split.TRAIN)

    def _task(self, rng: random.Random, kind: str, num_tokens: int, num_questions: int) -> Task:
        if kind != SINGLE_FACT:
            return tasks()[kind](num_tokens, num_questions)
        num_facts = None if rng.random() < 0.5 else rng.randint(2, 4 + num_tokens // 50)
        if self.terse_ratio:
            return SingleFact(num_tokens, num_questions, None, ATTRIBUTES[:1], 0.0, 2, 1)
        return SingleFact(num_tokens, num_questions, num_facts)


def stages(num_final_steps: int) -> list[Stage]:
    """The whole curriculum: the lookup, all tasks, the length doubling, then `num_final_steps` of all lengths."""
    every = (SINGLE_FACT, *tasks())
    return [
        Stage((32,), (24,), 6e-4, 300, (SINGLE_FACT,), 0.9, terse_ratio=0.2),
        Stage((96,), (20,), 6e-4, 150, every, 0.93),
        Stage((96,), (16,), 6e-4, 150, every, 0.93, plants_counting=True),
        Stage((192,), (8,), 6e-4, 80, every, 0.95),
        Stage((400,), (6,), 6e-4, 80, every, 0.95),
        Stage((800,), (4,), 6e-4, 60, every, 0.95),
        Stage((1600,), (2,), 6e-4, 50, every, 0.95),
        Stage((300, 1200, 2500, 4200), (8, 3, 2, 1), 5e-4, num_final_steps, every, final_share=0.05),
    ]
