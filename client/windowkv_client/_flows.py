"""Calls that answer once: the flows that both clients run. No I/O: see `_flow`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from google.protobuf.message import Message
from grpc_health.v1 import health_pb2

from windowkv_client import _calls as calls
from windowkv_client import _replies as replies
from windowkv_client._calls import Call
from windowkv_client._errors import InternalError, ResourceExhausted, WindowKVError
from windowkv_client._flow import Flow, Open, Patience, Pause, Read, RetryPolicy, Stream, Unary
from windowkv_client._models import Cache, Health, Model, Progress

OnProgress = Callable[[Progress], object]


def ask_once(call: Call, policy: RetryPolicy) -> Flow[Message]:
    """A unary call's response; when the service has no room it is asked again after the pause it names."""
    patience = Patience(policy, call.timeout_s)
    while True:
        try:
            response: Message = yield Unary(patience.attempt(call))
        except ResourceExhausted as error:
            yield _pause(patience, error)
        else:
            return response


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
    answer = yield from ask_once(check, policy)
    assert isinstance(answer, health_pb2.HealthCheckResponse)
    is_serving = answer.status == health_pb2.HealthCheckResponse.SERVING
    try:
        shown = yield from ask_once(calls.get_model(timeout=timeout), policy)
    except WindowKVError:
        return Health(is_serving)
    return Health(is_serving, replies.read_model(shown.model), replies.read_worker(shown.status))


def get_model(policy: RetryPolicy, timeout: float) -> Flow[Model]:
    response = yield from ask_once(calls.get_model(timeout=timeout), policy)
    return replies.read_model(response.model)


@dataclass
class Pages:
    """A list that is read page by page; next_page answers None after the last."""

    labels: dict[str, str] | None
    page_size: int
    timeout: float
    policy: RetryPolicy
    page_token: str | None = ""

    def next_page(self) -> Flow[list[Cache] | None]:
        if self.page_token is None:
            return None
        call = calls.list_caches(self.labels, self.page_size, self.page_token, self.timeout)
        response = yield from ask_once(call, self.policy)
        self.page_token = response.next_page_token or None
        return [replies.read_cache(each) for each in response.caches]


def _read_creation(stream: Stream, on_progress: OnProgress | None) -> Flow[Cache]:
    while (event := (yield Read(stream))) is not None:
        if event.HasField("created"):
            return replies.read_created(event.created)
        if event.HasField("progress") and on_progress is not None:
            on_progress(replies.read_progress(event.progress))
    raise InternalError("the creation ended without a cache")


def _pause(patience: Patience, error: ResourceExhausted) -> Pause:
    if error.retry_after_s is None:
        raise error
    return patience.wait_after(error)
