"""What a suite is made of."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from windowkv_service.model.builtin.documents import Document, Split

FIRST_REPORTING_SEED = 1000


@dataclass(frozen=True)
class Case:
    """One document and what it is asked. is_conversation: earlier questions and answers stay in the input."""

    document: Document
    is_conversation: bool = False


@dataclass(frozen=True)
class Task:
    """name: `suite/part…`. draw: a document of this task; the same state of the generator gives the same one."""

    name: str
    draw: Callable[[random.Random, Split], Document]
    is_conversation: bool = False

    @property
    def suite(self) -> str:
        return self.name.partition("/")[0]

    def case(self, seed: int, number: int) -> Case:
        """The number-th sample of a seed: the same on every machine, another for every seed, task and number. Pairs of
        names and values are held out: nothing here was trained on."""
        rng = random.Random(f"{seed}/{self.name}/{number}")
        return Case(self.draw(rng, Split.HELD_OUT), self.is_conversation)


@dataclass(frozen=True)
class Suite:
    name: str
    tasks: tuple[Task, ...]


def num_facts(num_tokens: int) -> int:
    """A dozen facts and one more per 100 tokens, as in the built-in model's card."""
    return 12 + num_tokens // 100


def seed_kind(seed: int) -> str:
    """Defaults are chosen on development seeds; tables are made on the others."""
    return "reporting" if seed >= FIRST_REPORTING_SEED else "development"
