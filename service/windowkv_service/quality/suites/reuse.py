"""reuse: one document, ten questions: each for itself, and in one conversation that grows with every answer."""

from __future__ import annotations

from windowkv_service.model.builtin.documents import SingleFact
from windowkv_service.quality.suites.base import Suite, Task, num_facts

NUM_TOKENS = 2000
NUM_QUESTIONS = 10


def reuse() -> Suite:
    draw = SingleFact(NUM_TOKENS, NUM_QUESTIONS, num_facts(NUM_TOKENS)).draw
    return Suite(
        "reuse", (Task("reuse/one-by-one", draw), Task("reuse/conversation", draw, is_conversation=True))
    )
