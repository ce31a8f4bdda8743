"""The engine as the rest of the service sees it: asynchronous calls in front, one worker thread behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, TypeVar

from windowkv_service.domain.requests import CreateRequest, GenerateRequest, ListRequest, UpdateRequest
from windowkv_service.domain.results import (
    CacheInfo,
    CachePage,
    CreateOutcome,
    DeleteReceipt,
    EngineStatus,
    GenerateChunk,
    ModelInfo,
    PrefillProgress,
)
from windowkv_service.engine.answer import answer
from windowkv_service.engine.create import create
from windowkv_service.engine.entries import delete, describe, list_page, update
from windowkv_service.engine.mailbox import Failed, Finished, Inbox, Outbox, Reply
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.task import Task, Walk
from windowkv_service.engine.worker import Worker
from windowkv_service.errors import Draining, QueueFull, WindowKVError
from windowkv_service.telemetry.request_metrics import CancelReason

POLL_S = 0.02
Result = TypeVar("Result")
Begin = Callable[[Callable[[Any], None]], Walk[Any]]  # given where events go, the walk


class Engine:
    """Start it on the event loop that its callers use. Calls raise WindowKVError, and nothing else on purpose."""

    def __init__(self, resources: Resources, inbox: Inbox) -> None:
        self._resources = resources
        self._inbox = inbox
        self._replies: dict[Task, Reply] = {}
        self._is_draining = False
        self._outbox: Outbox | None = None
        self._worker: Worker | None = None

    @property
    def model(self) -> ModelInfo:
        return self._resources.info

    def start(self) -> None:
        self._outbox = Outbox(asyncio.get_running_loop())
        self._worker = Worker(
            self._resources, self._inbox, self._finish, self._fail, self._outbox.flush, self._observe
        )
        self._worker.start()

    async def drain(self, timeout_s: float) -> None:
        """Refuse new requests; let running ones end, and what is on its way to lower tiers arrive."""
        self._is_draining = True
        until = time.monotonic() + timeout_s
        while self._replies and time.monotonic() < until:
            await asyncio.sleep(POLL_S)
        for task in list(self._replies):
            self._inbox.put(partial(self._cancel, task, "drain"))
        await asyncio.to_thread(self._resources.transfers.flush, max(1.0, until - time.monotonic()))

    async def stop(self) -> None:
        """End the worker's thread and the transfers. Call drain first to be kind."""
        self._is_draining = True
        if self._worker is not None:
            await asyncio.to_thread(self._worker.stop)
        await asyncio.to_thread(self._resources.close)

    async def create_cache(self, request: CreateRequest) -> AsyncGenerator[PrefillProgress | CreateOutcome]:
        """Progress while the prompt is prefilled, then the outcome."""
        began = time.monotonic()
        begin = partial(create, self._resources, request)
        async with aclosing(self._run(request.request_id, request.deadline, begin)) as batches:
            async for events in batches:
                for event in events:
                    yield event
        self._resources.metrics.requests.ended("create", time.monotonic() - began)

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[GenerateChunk]:
        """The answer, piece by piece; what has gathered while the caller was away comes as one piece."""
        began = time.monotonic()
        begin = partial(answer, self._resources, request, random.getrandbits(63))
        async with aclosing(self._run(request.request_id, request.deadline, begin)) as batches:
            async for chunks in batches:
                yield _join(chunks)
        self._resources.metrics.requests.ended("generate", time.monotonic() - began)

    async def get_cache(self, tenant: str, name: str) -> CacheInfo:
        return await self._ask(describe(self._resources, tenant, name))

    async def list_caches(self, request: ListRequest) -> CachePage:
        return await self._ask(list_page(self._resources, request))

    async def update_cache(self, request: UpdateRequest) -> CacheInfo:
        return await self._ask(update(self._resources, request))

    async def delete_cache(self, tenant: str, name: str) -> DeleteReceipt:
        return await self._ask(delete(self._resources, tenant, name))

    def status(self) -> EngineStatus:
        worker = self._worker
        is_alive = worker is not None and not worker.is_broken
        age = time.monotonic() - worker.heartbeat if worker is not None and is_alive else float("inf")
        return EngineStatus(
            is_ready=is_alive and not self._is_draining,
            is_draining=self._is_draining,
            heartbeat_age_s=age,
            num_running=0 if worker is None else worker.num_running,
            num_waiting=0 if worker is None else worker.num_waiting,
            tiers=self._resources.tier_statuses(),
        )

    async def _ask(self, walk: Walk[Result]) -> Result:
        """A short request without events of its own."""
        async with aclosing(self._run("", None, lambda emit: walk)) as batches:
            async for events in batches:
                for event in events:
                    return event  # type: ignore[no-any-return]
        raise AssertionError("a walk ended without a result")

    async def _run(self, request_id: str, deadline: float | None, begin: Begin) -> AsyncGenerator[list[Any]]:
        """Submit a walk and yield its events in batches, the result last. Closing this cancels the walk."""
        worker, outbox = self._admit()
        reply = Reply()
        task = Task(request_id, begin(partial(outbox.put, reply)), deadline)
        self._replies[task] = reply
        self._inbox.put(partial(worker.begin, task))
        try:
            is_over = False
            while not is_over:
                events = await reply.next()
                is_over = isinstance(events[-1], Finished | Failed)
                error = events[-1].error if isinstance(events[-1], Failed) else None
                values = [
                    e.result if isinstance(e, Finished) else e for e in events if not isinstance(e, Failed)
                ]
                if values:
                    yield values
                if error is not None:
                    self._count_refusal(error)
                    raise error
        finally:
            if self._replies.pop(task, None) is not None and not is_over:
                self._inbox.put(partial(worker.cancel, task, "client"))

    def _admit(self) -> tuple[Worker, Outbox]:
        assert self._worker is not None, "the engine has not been started"
        assert self._outbox is not None
        if self._is_draining:
            raise Draining("this worker is going away", retry_after_s=1.0)
        if self._worker.is_broken:
            raise Draining("this worker has broken down", retry_after_s=1.0)
        if self._worker.num_waiting + len(self._inbox) >= self._resources.limits.max_waiting:
            refusal = QueueFull("too many requests are waiting", retry_after_s=1.0)
            self._count_refusal(refusal)
            raise refusal
        return self._worker, self._outbox

    def _count_refusal(self, error: BaseException) -> None:
        if isinstance(error, WindowKVError):
            self._resources.metrics.requests.rejected(error)

    def _observe(self) -> None:
        self._resources.metrics.observe_status(self.status())
        self._resources.observe_entries()

    def _cancel(self, task: Task, reason: CancelReason) -> None:
        assert self._worker is not None
        self._worker.cancel(task, reason)

    def _finish(self, task: Task, result: object) -> None:
        self._deliver(task, Finished(result))

    def _fail(self, task: Task, error: BaseException) -> None:
        self._deliver(task, Failed(error))

    def _deliver(self, task: Task, end: Finished | Failed) -> None:
        assert self._outbox is not None
        with suppress(KeyError):  # the caller has left and takes nothing any more
            self._outbox.put(self._replies[task], end)


def _join(chunks: list[GenerateChunk]) -> GenerateChunk:
    """Consecutive pieces of one answer as one."""
    return GenerateChunk(
        index=chunks[0].index,
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(token_id for chunk in chunks for token_id in chunk.token_ids),
        logprobs=tuple(logprob for chunk in chunks for logprob in chunk.logprobs),
        finish_reason=chunks[-1].finish_reason,
        usage=chunks[-1].usage,
    )
