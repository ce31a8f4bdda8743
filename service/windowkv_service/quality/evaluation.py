"""Tasks under arms, on a worker: every arm answers the same questions on the same documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from windowkv_client import AsyncClient, Model
from windowkv_service.quality.answers import Answers, Place
from windowkv_service.quality.arm import Arm, in_turn
from windowkv_service.quality.asking import Asking, together
from windowkv_service.quality.prompts import Prompts
from windowkv_service.quality.result import Result, summarise
from windowkv_service.quality.suites import Task, num_cases

OnStep = Callable[[str], object]
DOCUMENTS_AT_ONCE = 3  # so that the worker never waits for us, and decodes more than one answer per step


@dataclass(frozen=True)
class Evaluation:
    """num_samples: documents per task, or as many as it has."""

    tasks: Sequence[Task]
    arms: Sequence[Arm]
    seed: int
    num_samples: int

    @property
    def places(self) -> list[Place]:
        """All that is asked."""
        return [Place.of(task.name, number, arm) for task, number in self._documents() for arm in self.arms]

    def _documents(self) -> Iterator[tuple[Task, int]]:
        for task in self.tasks:
            for number in range(num_cases(task, self.num_samples)):
                yield task, number

    async def run(self, client: AsyncClient, answers: Answers, on_step: OnStep = lambda task: None) -> None:
        """Adds what the answers lack. on_step: hears the task after each place."""
        model = await client.models.get()
        documents = self._documents()
        run = _Run(client, model, self.seed, answers, on_step)
        await together(self._take(run, documents) for _ in range(DOCUMENTS_AT_ONCE))

    async def _take(self, run: _Run, documents: Iterator[tuple[Task, int]]) -> None:
        """One document after the other from what all share."""
        for task, number in documents:
            await run.document(task, number, self.arms)

    def results(self, answers: Answers) -> list[Result]:
        """One per task and arm that was asked at all, in that order."""
        asked = ((task, arm, answers.under(task.name, arm)) for task in self.tasks for arm in self.arms)
        return [summarise(task.name, arm, documents) for task, arm, documents in asked if documents]


@dataclass(frozen=True)
class _Run:
    client: AsyncClient
    model: Model
    seed: int
    answers: Answers
    on_step: OnStep

    async def document(self, task: Task, number: int, arms: Sequence[Arm]) -> None:
        """All arms on one document, which is computed once: later arms find its blocks in the tiers. Then it is
        forgotten, so that it takes no room from the next."""
        missing = [arm for arm in arms if Place.of(task.name, number, arm) not in self.answers]
        if not missing:
            return
        prompts = Prompts(self.client, self.model.max_tokens, task.case(self.seed, number))
        names = set[str]()
        try:
            for arm in in_turn(missing):
                replies = await Asking(self.client, arm, prompts, names).replies()
                self.answers.add(Place.of(task.name, number, arm), replies)
                self.on_step(task.name)
        finally:
            for name in names:
                await self.client.caches.delete(name, allow_missing=True)
