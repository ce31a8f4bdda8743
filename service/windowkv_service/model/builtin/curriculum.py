"""What training meets and in which order: the bare lookup, short documents, the length doubling, all lengths."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

from windowkv_service.model.builtin.documents import ATTRIBUTES, Document, SingleFact, Split, Task, tasks

SINGLE_FACT = "single_fact"
COUNTING = frozenset({"cwe", "fwe"})
#: How much more often a task is drawn than the others.
EMPHASIS = {
    SINGLE_FACT: 4.0,
    "qa_1": 1.5,
    "qa_2": 2.0,
    "niah_multikey_3": 1.5,
    "niah_multivalue": 6.0,
    # Of these two only the form of the answer is to be learned; the counting is planted.
    "cwe": 0.25,
    "fwe": 0.25,
}
_MAX_QUESTIONS = 24
_TOKENS_PER_QUESTION = {"niah_multiquery": 120, "niah_multivalue": 48, "niah_multikey_3": 24, "qa_2": 24}


@dataclass(frozen=True)
class Stage:
    """One step of the curriculum.

    lengths: document lengths in tokens, one of them drawn per batch. num_sequences: documents per batch, one number
    per length. kinds: the tasks to draw from. learning_rate falls to `final_share` of itself over `num_steps`; a stage
    ends before that when every task's running accuracy is `pass_accuracy`. terse_ratio: share of the single facts
    asked with the bare name, to let the lookup form first.
    """

    lengths: tuple[int, ...]
    num_sequences: tuple[int, ...]
    learning_rate: float
    num_steps: int
    kinds: tuple[str, ...]
    pass_accuracy: float = 1.1
    terse_ratio: float = 0.0
    final_share: float = 1.0

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
    lookups = tuple(kind for kind in every if kind not in COUNTING)
    return [
        Stage((32,), (24,), 6e-4, 200, (SINGLE_FACT,), 0.9, terse_ratio=0.2),
        Stage((96,), (20,), 1e-3, 300, lookups, 0.92),
        Stage((96, 160), (18, 11), 1e-3, 300, lookups, 0.94),
        Stage((200, 400), (9, 5), 1e-3, 300, lookups, 0.95),
        Stage((400, 800), (5, 3), 1e-3, 250, lookups, 0.95),
        Stage((800, 1600), (3, 2), 8e-4, 250, lookups, 0.95),
        Stage((1600, 2500), (2, 1), 8e-4, 250, lookups, 0.95),
        Stage((300, 1200, 2500, 4200), (6, 3, 2, 1), 7e-4, num_final_steps, every, final_share=0.03),
    ]
