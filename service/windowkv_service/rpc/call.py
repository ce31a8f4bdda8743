"""Who calls, and for which request: what the interceptors find out once and the servicers read."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from grpc import aio

from windowkv_service.errors import BadOption

Context = aio.ServicerContext[Any, Any]
Metadata = Iterable[tuple[str, str | bytes]]

REQUEST_ID_KEY = "x-request-id"
MAX_REQUEST_ID = 128


@dataclass(frozen=True)
class Call:
    """One call: its tenant, its request's id, and when it must be over, in time.monotonic() seconds."""

    tenant: str
    request_id: str
    deadline: float | None


# gRPC runs interceptors and handler of one call in one context of its own; no call sees another's.
current_tenant: ContextVar[str] = ContextVar("windowkv_tenant")
current_call: ContextVar[Call] = ContextVar("windowkv_call")


def choose_request_id(request: object, metadata: Metadata) -> str:
    """The message's own id, else the metadata's, else a new one. They go into logs: short printable ASCII."""
    own = getattr(request, "request_id", "")
    if own:
        if not _is_request_id(own):
            raise BadOption(f"at most {MAX_REQUEST_ID} printable ASCII characters", field="request_id")
        return str(own)
    return request_id_from(metadata)


def request_id_from(metadata: Metadata) -> str:
    """The metadata's id where it is usable, else a new one."""
    for key, value in metadata:
        if key == REQUEST_ID_KEY and _is_request_id(value):
            return str(value)
    return uuid4().hex


def deadline_of(context: Context) -> float | None:
    """When the call must be over, in time.monotonic() seconds; None when the client set no deadline."""
    remaining: float | None = context.time_remaining()
    return None if remaining is None else time.monotonic() + remaining


def _is_request_id(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= MAX_REQUEST_ID
        and value.isascii()
        and value.isprintable()
    )
