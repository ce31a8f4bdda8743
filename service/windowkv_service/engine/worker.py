"""The worker's thread: take mail, collect transfers, resume walks, decode one token for all, compute one chunk."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from windowkv_service.engine.decode import DecodeBatch
from windowkv_service.engine.hearing import hear
from windowkv_service.engine.mailbox import Inbox
from windowkv_service.engine.resources import Resources
from windowkv_service.engine.sequence import Decoding
from windowkv_service.engine.task import Soon, Task, Turn
from windowkv_service.errors import DeadlineExceeded, Draining, RequestCancelled, WindowKVError
from windowkv_service.telemetry.request_metrics import CancelReason

IDLE_WAIT_S = 0.05  # expiry and deadlines are looked at this often when nothing else happens
TICK_S = 0.25

Finish = Callable[[Task, object], None]
Fail = Callable[[Task, BaseException], None]

logger = structlog.get_logger(__name__)


class Worker:
    """Owns the books and the model: everything below runs in one thread, so nothing below takes a lock.

    finish and fail are called in that thread when a task's walk has ended; after_step once per step, on_tick a few
    times a second.
    """

    def __init__(
        self,
        resources: Resources,
        inbox: Inbox,
        finish: Finish,
        fail: Fail,
        after_step: Callable[[], None],
        on_tick: Callable[[], None],
    ) -> None:
        self._resources = resources
        self._inbox = inbox
        self._finish = finish
        self._fail = fail
        self._after_step = after_step
        self._on_tick = on_tick
        self._waiting: dict[Task, None] = {}
        self._turns: deque[Task] = deque()
        self._decoding: dict[Task, Decoding] = {}
        # by the layers whose KV heads have tables of their own
        self._batches: dict[frozenset[int], DecodeBatch] = {}
        self._is_stopping = False
        self.is_broken = False  # its thread has ended by a fault of ours: only a restart helps
        self._last_tick = 0.0
        self.heartbeat = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="windowkv-engine", daemon=True)

    @property
    def num_running(self) -> int:
        return len(self._decoding)

    @property
    def num_waiting(self) -> int:
        return len(self._waiting) + len(self._turns)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the step in flight; running walks are closed."""

        def leave() -> None:
            self._is_stopping = True

        self._inbox.put(leave)
        self._thread.join()

    def begin(self, task: Task) -> None:
        self._advance(task)

    def cancel(self, task: Task, reason: CancelReason) -> None:
        """Free what the task holds within this step. A task that has ended already is left alone."""
        if task in self._waiting or task in self._decoding or task in self._turns:
            self._resources.metrics.requests.cancelled(reason)
            is_drain = reason == "drain"
            self._abort(
                task, Draining("the worker went away") if is_drain else RequestCancelled("the caller left")
            )

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self.step()
        except Exception:  # the books may be in any state: nothing is done with them any more
            logger.exception("worker_broke")
            self.is_broken = True
        for task in [*self._waiting, *self._turns, *self._decoding]:
            self._abort(task, RequestCancelled("the worker stopped"))
        self._after_step()

    def step(self) -> None:
        """One round; everything that can go on has gone on by its end."""
        is_busy = bool(self._turns or self._decoding) or any(
            isinstance(task.wait, Soon) for task in self._waiting
        )
        for act in self._inbox.take(0.0 if is_busy else IDLE_WAIT_S):
            act()
        self.heartbeat = time.monotonic()
        self._resources.collect()
        self._end_late_tasks()
        self._resume_ready()
        self._decode()
        self._give_turn()
        self._tick()
        self._after_step()

    def _resume_ready(self) -> None:
        for task in [task for task in self._waiting if task.wait is not None and task.wait.is_over()]:
            del self._waiting[task]
            self._advance(task)

    def _give_turn(self) -> None:
        if self._turns:
            self._advance(self._turns.popleft())

    def _decode(self) -> None:
        self._listen()
        alike: dict[frozenset[int], list[Task]] = {}
        for task, decoding in self._decoding.items():
            alike.setdefault(decoding.sequence.tables.split_layers, []).append(task)
        for split_layers, tasks in alike.items():
            if split_layers not in self._batches:
                self._batches[split_layers] = DecodeBatch(self._resources)
            self._decode_batch(self._batches[split_layers], tasks)
        for task in [task for task, decoding in self._decoding.items() if decoding.is_over()]:
            del self._decoding[task]
            self._advance(task)

    def _listen(self) -> None:
        """One pass for all answers that are to choose their windows again; most go on in this same step."""
        listeners = {
            task: each.listener for task, each in self._decoding.items() if each.listener is not None
        }
        if not listeners:
            return
        try:
            hear(
                self._resources, [self._decoding[task].sequence for task in listeners], [*listeners.values()]
            )
        except Exception as error:
            self._end_all(list(listeners), error)
            return
        for task in listeners:
            del self._decoding[task]
            self._advance(task)

    def _end_all(self, tasks: Sequence[Task], error: Exception) -> None:
        """The pass belonged to all of them: none may be left half done."""
        self._resources.metrics.steps.faulted()
        for task in tasks:
            self._abort(task, error)

    def _decode_batch(self, batch: DecodeBatch, tasks: Sequence[Task]) -> None:
        started = time.perf_counter()
        try:
            batch.step([self._decoding[task].sequence for task in tasks])
        except Exception as error:
            self._end_all(tasks, error)
            return
        self._resources.metrics.steps.stepped("decode", len(tasks), time.perf_counter() - started)

    def _advance(self, task: Task) -> None:
        """Run the walk to its next wait."""
        try:
            wait = next(task.walk)
        except StopIteration as end:
            self._finish(task, end.value)
        except Exception as error:  # a broken walk ends its own request, never the worker
            self._report(task, error)
            self._fail(task, error)
        else:
            self._park(task, wait)

    def _park(self, task: Task, wait: object) -> None:
        task.wait = wait  # type: ignore[assignment]
        if isinstance(wait, Turn):
            self._turns.append(task)
        elif isinstance(wait, Decoding):
            self._decoding[task] = wait
        else:
            self._waiting[task] = None

    def _end_late_tasks(self) -> None:
        now = time.monotonic()
        for task in [task for task in (*self._waiting, *self._turns, *self._decoding) if task.is_late(now)]:
            self._resources.metrics.requests.cancelled("deadline")
            self._abort(task, DeadlineExceeded("the deadline passed before the answer was complete"))

    def _abort(self, task: Task, error: BaseException) -> None:
        self._waiting.pop(task, None)
        self._decoding.pop(task, None)
        if task in self._turns:
            self._turns.remove(task)
        try:
            task.walk.close()
        except Exception as trouble:  # closing must free, whatever it meets
            self._report(task, trouble)
        self._report(task, error)
        self._fail(task, error)

    @staticmethod
    def _report(task: Task, error: BaseException) -> None:
        if not isinstance(error, WindowKVError):
            logger.error("request_broke", request_id=task.request_id, exc_info=error)

    def _tick(self) -> None:
        """Housekeeping, a few times a second: expired entries leave every tier, gauges follow."""
        now = time.monotonic()
        if now - self._last_tick < TICK_S:
            return
        self._last_tick = now
        self._resources.expire()
        self._on_tick()
