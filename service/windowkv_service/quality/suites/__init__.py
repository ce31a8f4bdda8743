"""What is asked: one file per suite, each a list of tasks that give documents with questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from types import MappingProxyType

from windowkv_service.quality.suites.base import Suite, Task, num_cases, seed_kind, suite_of
from windowkv_service.quality.suites.longbench import longbench
from windowkv_service.quality.suites.niah import niah
from windowkv_service.quality.suites.reuse import reuse
from windowkv_service.quality.suites.ruler import ruler
from windowkv_service.quality.suites.ruler_files import ruler_files
from windowkv_service.quality.suites.single import single

__all__ = ["FROM_FILES", "Suite", "Task", "find_tasks", "num_cases", "seed_kind", "suite_of", "suites"]

#: Suites of published files, by the word before the colon and the folder.
FROM_FILES: Mapping[str, Callable[[Path], Suite]] = MappingProxyType(
    {"longbench": longbench, "ruler-files": ruler_files}
)


def suites() -> dict[str, Suite]:
    """Every suite of our own by its name."""
    return {suite.name: suite for suite in (single(), niah(), reuse(), ruler())}


def find_tasks(names: Sequence[str]) -> list[Task]:
    """The tasks of suites, or parts of suites: `single`, `ruler/vt`, `ruler/*/2000`, `longbench:DIR`. Raises ValueError
    for none, BadFile for files that are not what they should be."""
    found: dict[str, Task] = {}
    for name in names:
        found |= {task.name: task for task in _tasks(name)}
    return list(found.values())


def _tasks(name: str) -> Sequence[Task]:
    kind, colon, place = name.partition(":")
    if colon and kind in FROM_FILES:
        return FROM_FILES[kind](Path(place)).tasks
    every = [task for suite in suites().values() for task in suite.tasks]
    chosen = [task for task in every if _is_part(task.name.split("/"), name.split("/"))]
    if not chosen:
        known = [*suites(), *(f"{kind}:DIR" for kind in FROM_FILES)]
        raise ValueError(f"unknown suite {name!r}; known: {', '.join(known)}")
    return chosen


def _is_part(of_task: Sequence[str], wanted: Sequence[str]) -> bool:
    """A path of the first few parts, each of which may have a star for what is not said."""
    return len(wanted) <= len(of_task) and all(map(fnmatchcase, of_task, wanted))
