"""Calls that answer once: the flows that both clients run. No I/O: see `_flow`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from grpc_health.v1 import health_pb2

from windowkv.v1 import model_pb2
from windowkv_client import _calls as calls
from windowkv_client import _replies as replies
from windowkv_client._calls import Call
from windowkv_client._errors import InternalError, ResourceExhausted, WindowKVError
from windowkv_client._flow import Flow, Open, Patience, Pause, Read, RetryPolicy, Stream, Unary
from windowkv_client._models import Cache, Health, Progress

T = TypeVar("T")
OnProgress = Callable[[Progress], object]


def ask_once(call: Call, policy: RetryPolicy, read: Callable[[Any], T]) -> Flow[T]:
    """What read makes of a unary call's response; without room there it is asked again after the pause it names."""
    patience = Patience(policy, call.timeout_s)
    while True:
        try:
            return read((yield Unary(patience.attempt(call))))
        except ResourceExhausted as error:
            yield _pause(patience, error)


def create_cache(call: Call, policy: RetryPolicy, on_progress: OnProgress | None) -> Flow[Cache]:
    """The new cache, after its prefill's progress."""
    patience = Patience(policy, call.timeout_s)
    while True:
        stream: Stream = yield Open(patience.attempt(call))
        try:
            return (yield from _read_creation(stream, on_progress))
        except ResourceExhausted as error:
            yield _pause(patience, error)
        finally:
            stream.cancel()


def health(policy: RetryPolicy, timeout: float) -> Flow[Health]:
    """The health service's word; a worker that does not serve may still tell how it is."""
    check = Call("Health", "Check", health_pb2.HealthCheckRequest(), timeout, request_id="")
    is_serving = yield from ask_once(check, policy, _reads_serving)
    try:
        return (yield from ask_once(calls.get_model(timeout=timeout), policy, _health_reader(is_serving)))
    except WindowKVError:
        return Health(is_serving)


@dataclass
class Pages:
    """A list that is read page by page; next_page answers None after the last."""

    labels: Mapping[str, str] | None
    page_size: int
    timeout: float
    policy: RetryPolicy
    page_token: str | None = ""

    def next_page(self) -> Flow[list[Cache] | None]:
        if self.page_token is None:
            return None
        call = calls.list_caches(self.labels, self.page_size, self.page_token, self.timeout)
        page, next_page_token = yield from ask_once(call, self.policy, replies.read_page)
        self.page_token = next_page_token or None
        return page


def _read_creation(stream: Stream, on_progress: OnProgress | None) -> Flow[Cache]:
    while (event := (yield Read(stream))) is not None:
        if event.HasField("created"):
            with suppress(WindowKVError):  # it is made, whatever becomes of the stream
                yield Read(
                    stream
                )  # to its end: a stream cancelled before that is an error in the worker's log
            return replies.read_created(event.created)
        if event.HasField("progress") and on_progress is not None:
            on_progress(replies.read_progress(event.progress))
    raise InternalError("the creation ended without a cache")


def _reads_serving(response: health_pb2.HealthCheckResponse) -> bool:
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)


def _health_reader(is_serving: bool) -> Callable[[model_pb2.GetModelResponse], Health]:
    return lambda shown: Health(
        is_serving, replies.read_model(shown.model), replies.read_worker(shown.status)
    )


def _pause(patience: Patience, error: ResourceExhausted) -> Pause:
    if error.retry_after_s is None:
        raise error
    return patience.wait_after(error)
