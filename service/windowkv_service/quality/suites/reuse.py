"""reuse: one document, ten questions: each for itself, and in one conversation that grows with every answer. Only the
exact answer counts."""

from __future__ import annotations

from windowkv_service.model.builtin.documents import SingleFact
from windowkv_service.quality.suites.base import Suite
from windowkv_service.quality.suites.generated import Generated, num_facts

NUM_TOKENS = 2000
NUM_QUESTIONS = 10


def reuse() -> Suite:
    source = SingleFact(NUM_TOKENS, NUM_QUESTIONS, num_facts(NUM_TOKENS))
    return Suite(
        "reuse",
        (
            Generated("reuse/one-by-one", source),
            Generated("reuse/conversation", source, is_conversation=True),
        ),
    )
