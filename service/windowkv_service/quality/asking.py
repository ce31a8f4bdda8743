"""How one arm is asked one case: through the SDK, as any user would."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from windowkv_client import AsyncClient, Cache
from windowkv_service.quality.arm import Arm
from windowkv_service.quality.case import Asked
from windowkv_service.quality.prompts import Prompt, Prompts
from windowkv_service.quality.reply import Reply

LIFE_S = 3600

T = TypeVar("T")


class Cached(NamedTuple):
    prompt: Prompt
    cache: Cache


@dataclass
class Asking:
    """One arm's answers to the questions of one case. names: takes the names of the caches made for it."""

    client: AsyncClient
    arm: Arm
    prompts: Prompts
    names: set[str]
    _cached: dict[str, Cached] = field(default_factory=dict)  # by what the cached prompt says of questions

    async def replies(self) -> list[Reply]:
        """To all of the case's questions, in order. Caches are made one after the other, each on what the last one
        left; questions are asked at the same time, but for a conversation's."""
        case = self.prompts.case
        if case.is_conversation:
            return await self._converse(case.questions)
        every = [await self._cache(question, question.text) for question in case.questions]
        return await together(
            self._ask(cached, question, question.text)
            for cached, question in zip(every, case.questions, strict=True)
        )

    async def _converse(self, questions: tuple[Asked, ...]) -> list[Reply]:
        replies: list[Reply] = []
        before = ""
        for question in questions:
            cached = await self._cache(question, before + question.text)
            replies.append(await self._ask(cached, question, before + question.text))
            before += question.turn(replies[-1].said)
        return replies

    async def _cache(self, question: Asked, text: str) -> Cached:
        """What the question is asked on. Hidden ones share one cache, which knows nothing of them."""
        known = text if self.arm.is_visible else ""
        if known not in self._cached:
            prompts = self.prompts
            making = prompts.with_question(text, question.max_tokens) if known else prompts.document()
            prompt = await making
            self._cached[known] = Cached(prompt, await self._create(prompt))
            self.names.add(self._cached[known].cache.name)
        return self._cached[known]

    async def _create(self, prompt: Prompt) -> Cache:
        return await self.client.caches.create(
            token_ids=prompt.token_ids,
            method=self.arm.method.selector,
            codec=self.arm.method.codec,
            kept_ratio=self.arm.kept_ratio,
            retention=self.arm.method.retains,
            ttl=LIFE_S,
        )

    async def _ask(self, cached: Cached, question: Asked, text: str) -> Reply:
        cache = cached.cache
        async with self.client.generate(
            cache,
            None if self.arm.is_visible else text,
            selection=self.arm.method.selects,
            max_tokens=question.max_tokens,
            stop=question.stop,
            temperature=0.0,
        ) as answer:
            said = await answer.read()
        usage = answer.usage
        assert usage is not None, "a finished answer carries its usage"
        return Reply(
            said=said,
            score=question.score(said),
            entry_bytes=cache.stored_bytes,
            device_bytes=usage.device_bytes,
            tail_bytes=usage.tail_bytes,
            full_bytes=cache.full_bytes,
            fidelity=usage.fidelity,
            is_cut=cached.prompt.is_cut,
        )


async def together(work: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """The results of all, in order. The first that fails ends the others, and is raised itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one) for one in work]
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return [task.result() for task in tasks]
