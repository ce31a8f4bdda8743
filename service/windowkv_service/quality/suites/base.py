"""What a suite is made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from windowkv_service.quality.case import Case

FIRST_REPORTING_SEED = 1000


class Task(Protocol):
    """A source of cases of one kind."""

    @property
    def name(self) -> str:
        """`suite/part…`"""

    @property
    def size(self) -> int | None:
        """How many cases there are; None for as many as are asked for."""

    def case(self, seed: int, number: int) -> Case:
        """The number-th sample of a seed: the same on every machine. number is below the size."""


@dataclass(frozen=True)
class Suite:
    name: str
    tasks: tuple[Task, ...]


def suite_of(task_name: str) -> str:
    return task_name.partition("/")[0]


def num_cases(task: Task, wanted: int) -> int:
    return wanted if task.size is None else min(wanted, task.size)


def seed_kind(seed: int) -> str:
    """Defaults are chosen on development seeds; tables are made on the others."""
    return "reporting" if seed >= FIRST_REPORTING_SEED else "development"
