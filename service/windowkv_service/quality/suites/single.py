"""single: facts in filler, each question asks for one of them. Only the exact answer counts."""

from __future__ import annotations

from windowkv_service.model.builtin.documents import SingleFact
from windowkv_service.quality.suites.base import Suite
from windowkv_service.quality.suites.generated import Generated, num_facts

LENGTHS = (1000, 2000, 4000)
NUM_QUESTIONS = 5


def single() -> Suite:
    return Suite("single", tuple(_task(num_tokens) for num_tokens in LENGTHS))


def _task(num_tokens: int) -> Generated:
    return Generated(f"single/{num_tokens}", SingleFact(num_tokens, NUM_QUESTIONS, num_facts(num_tokens)))
