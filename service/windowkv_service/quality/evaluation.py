"""Tasks under arms, on a worker: every arm answers the same questions on the same documents."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from windowkv_client import Client
from windowkv_service.quality.arm import Arm, in_turn
from windowkv_service.quality.asking import Reply, ask_case
from windowkv_service.quality.result import Result, summarise
from windowkv_service.quality.suites import Task

OnStep = Callable[[str], object]


@dataclass(frozen=True)
class Evaluation:
    """num_samples: documents per task."""

    tasks: Sequence[Task]
    arms: Sequence[Arm]
    seed: int
    num_samples: int

    @property
    def num_steps(self) -> int:
        """How often run calls on_step."""
        return len(self.tasks) * len(self.arms) * self.num_samples

    def run(self, client: Client, on_step: OnStep = lambda task: None) -> list[Result]:
        """One result per task and arm, in that order. on_step: hears the task after each arm of each document."""
        return [result for task in self.tasks for result in self._run_task(client, task, on_step)]

    def _run_task(self, client: Client, task: Task, on_step: OnStep) -> list[Result]:
        documents: dict[Arm, list[list[Reply]]] = {arm: [] for arm in self.arms}
        for number in range(self.num_samples):
            self._run_document(client, task, number, documents, on_step)
        return [summarise(task, arm, documents[arm]) for arm in self.arms]

    def _run_document(
        self,
        client: Client,
        task: Task,
        number: int,
        documents: dict[Arm, list[list[Reply]]],
        on_step: OnStep,
    ) -> None:
        """All arms on one document, which is computed once: later arms find its blocks in the tiers. Then it is
        forgotten, so that it takes no room from the next."""
        case, names = task.case(self.seed, number), set[str]()
        try:
            for arm in in_turn(self.arms):
                documents[arm].append(list(ask_case(client, arm, case, names)))
                on_step(task.name)
        finally:
            for name in names:
                client.caches.delete(name, allow_missing=True)
