"""Conversations with the service, written once for both clients.

A flow is a generator that yields steps and gets their outcomes: what to send, what an answer means, when to try again.
It does no I/O; `Transport` and `AsyncTransport` perform the steps, each in its own manner.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from windowkv_client._calls import Call
from windowkv_client._errors import DeadlineExceeded, WindowKVError


class Stream(Protocol):
    """An open server stream; cancel returns at once and may be called at any time."""

    def cancel(self) -> object: ...


@dataclass(frozen=True)
class Unary:
    """Make a call; the outcome is its response."""

    call: Call


@dataclass(frozen=True)
class Open:
    """Start a streaming call; the outcome is a Stream."""

    call: Call


@dataclass(frozen=True)
class Read:
    """Wait for a stream's next message; the outcome is None at its end."""

    stream: Stream


@dataclass(frozen=True)
class Pause:
    """Wait."""

    seconds: float


T = TypeVar("T")
Flow = Generator[Unary | Open | Read | Pause, Any, T]


@dataclass(frozen=True)
class RetryPolicy:
    """How often a call that found no room, or a stream that broke, is tried again, and how long a single wait may be.

    The call's timeout is for all attempts together.
    """

    max_attempts: int = 4
    max_wait_s: float = 30.0
    first_wait_s: float = 0.1
    clock: Callable[[], float] = time.monotonic


class Patience:
    """The attempts left for one call, and its time."""

    def __init__(self, policy: RetryPolicy, timeout_s: float) -> None:
        self._policy = policy
        self._deadline = policy.clock() + timeout_s
        self._attempts = 1

    def attempt(self, call: Call) -> Call:
        """The call with the time that is left."""
        remaining = self._deadline - self._policy.clock()
        if remaining <= 0:
            raise DeadlineExceeded(
                "the call's timeout passed between two attempts", request_id=call.request_id
            )
        return replace(call, timeout_s=remaining)

    def wait_after(self, error: WindowKVError) -> Pause:
        """The pause before the next attempt; raises error when there is none."""
        wait_s = error.retry_after_s
        if wait_s is None:
            wait_s = self._policy.first_wait_s * 2 ** (self._attempts - 1)
        has_time = self._policy.clock() + wait_s < self._deadline
        if self._attempts >= self._policy.max_attempts or wait_s > self._policy.max_wait_s or not has_time:
            raise error
        self._attempts += 1
        return Pause(wait_s)
