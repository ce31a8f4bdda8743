"""What is asked: one file per suite, each a list of tasks that draw documents with questions."""

from __future__ import annotations

from collections.abc import Sequence

from windowkv_service.quality.suites.base import Case, Suite, Task, seed_kind
from windowkv_service.quality.suites.niah import niah
from windowkv_service.quality.suites.reuse import reuse
from windowkv_service.quality.suites.single import single

__all__ = ["Case", "Suite", "Task", "find_tasks", "seed_kind", "suites"]


def suites() -> dict[str, Suite]:
    """Every suite by its name."""
    return {suite.name: suite for suite in (single(), niah(), reuse())}


def find_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of suites, or parts of suites: `single`, `single/2000`, `niah/4000/50`. ValueError for none."""
    every = [task for suite in suites().values() for task in suite.tasks]
    found: dict[str, Task] = {}
    for name in names:
        chosen = {task.name: task for task in every if f"{task.name}/".startswith(f"{name}/")}
        if not chosen:
            raise ValueError(f"unknown suite {name!r}; known: {', '.join(suites())}")
        found |= chosen
    return list(found.values())
