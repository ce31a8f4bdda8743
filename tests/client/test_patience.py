"""When a call is tried again, and when not: the flows alone, with a clock of the test's own."""

from __future__ import annotations

from typing import Any

import pytest

from windowkv_client import (
    CacheFull,
    CacheNotFound,
    Client,
    DeadlineExceeded,
    QueueFull,
    RetryPolicy,
    WindowKVError,
)
from windowkv_client._calls import create_cache, get_model
from windowkv_client._flow import Flow, Open, Pause, Read, Unary
from windowkv_client._flows import ask_once
from windowkv_client._flows import create_cache as create_flow
from windowkv_client.testing import InProcessServer


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class StubStream:
    was_cancelled = False

    def cancel(self) -> None:
        self.was_cancelled = True


def play(flow: Flow[Any], clock: Clock, outcomes: list[object], call_s: float = 0.0) -> tuple[list[Any], Any]:
    """Run a flow against prepared outcomes; its steps, and what it returned."""
    steps: list[Any] = []
    outcome: object = None
    try:
        while True:
            step = flow.throw(outcome) if isinstance(outcome, Exception) else flow.send(outcome)
            steps.append(step)
            if isinstance(step, Pause):
                clock.now += step.seconds
                outcome = None
            else:
                clock.now += call_s
                outcome = outcomes.pop(0)
    except StopIteration as end:
        return steps, end.value


def pauses(steps: list[Any]) -> list[float]:
    return [step.seconds for step in steps if isinstance(step, Pause)]


@pytest.mark.parametrize("error", [QueueFull, CacheFull])
def test_a_full_service_is_asked_again_after_the_pause_it_names(error: type[WindowKVError]) -> None:
    clock = Clock()
    flow = ask_once(get_model(timeout=60), RetryPolicy(clock=clock), str)
    steps, answer = play(
        flow, clock, [error("full", retry_after_s=2.5), error("full", retry_after_s=0.5), "model"]
    )
    assert answer == "model" and pauses(steps) == [2.5, 0.5]


def test_the_timeout_is_for_all_attempts_together() -> None:
    clock = Clock()
    flow = ask_once(get_model(timeout=10), RetryPolicy(clock=clock), str)
    steps, _ = play(flow, clock, [QueueFull("full", retry_after_s=3.0), "model"], call_s=1.0)
    assert [step.call.timeout_s for step in steps if isinstance(step, Unary)] == [10.0, 6.0]


def test_a_pause_beyond_the_timeout_is_not_begun() -> None:
    clock = Clock()
    flow = ask_once(get_model(timeout=10), RetryPolicy(clock=clock), str)
    with pytest.raises(QueueFull):
        play(flow, clock, [QueueFull("full", retry_after_s=11.0)])


def test_attempts_are_bounded() -> None:
    clock = Clock()
    flow = ask_once(get_model(timeout=60), RetryPolicy(max_attempts=3, clock=clock), str)
    outcomes: list[object] = [QueueFull("full", retry_after_s=0.1) for _ in range(9)]
    with pytest.raises(QueueFull):
        play(flow, clock, outcomes)
    assert len(outcomes) == 6


def test_a_single_wait_is_bounded() -> None:
    clock = Clock()
    flow = ask_once(get_model(timeout=600), RetryPolicy(max_wait_s=5.0, clock=clock), str)
    with pytest.raises(QueueFull):
        play(flow, clock, [QueueFull("full", retry_after_s=6.0)])


@pytest.mark.parametrize("error", [QueueFull("full"), CacheNotFound("gone", retry_after_s=1.0)])
def test_without_an_invitation_nothing_is_tried_again(error: WindowKVError) -> None:
    clock = Clock()
    with pytest.raises(type(error)):
        play(ask_once(get_model(), RetryPolicy(clock=clock), str), clock, [error])


def test_time_that_runs_out_between_attempts_is_told() -> None:
    clock = Clock()
    flow = ask_once(get_model(timeout=1.0), RetryPolicy(clock=clock), str)
    flow.send(None)
    flow.throw(QueueFull("full", retry_after_s=0.5))
    clock.now = 2.0
    with pytest.raises(DeadlineExceeded):
        flow.send(None)


def test_a_creation_without_room_starts_over_and_leaves_no_stream_behind() -> None:
    clock, first, second = Clock(), StubStream(), StubStream()
    flow = create_flow(create_cache("text"), RetryPolicy(clock=clock), None)
    outcomes = [first, CacheFull("full", retry_after_s=1.0), second, None]
    with pytest.raises(WindowKVError, match="without a cache"):
        play(flow, clock, outcomes)
    assert first.was_cancelled and second.was_cancelled


def test_a_creation_given_up_cancels_its_stream() -> None:
    stream = StubStream()
    flow = create_flow(create_cache("text"), RetryPolicy(), None)
    assert isinstance(flow.send(None), Open)
    assert isinstance(flow.send(stream), Read)
    flow.close()
    assert stream.was_cancelled


def test_over_grpc_a_full_queue_is_waited_for(client: Client, server: InProcessServer) -> None:
    for method in ("CreateCache", "Generate", "GetModel"):
        server.fail_next(QueueFull("full", retry_after_s=0.01), method=method)
    cache = client.caches.create("The code is 12. ")
    assert client.generate(cache, "The code is").read() == " 12."
    assert client.models.get().name == "copying"
