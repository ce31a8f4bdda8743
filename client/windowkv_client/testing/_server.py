"""The in-process server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer
from grpc_status import rpc_status

from windowkv.v1 import cache_pb2_grpc, generation_pb2_grpc, model_pb2_grpc
from windowkv_client._async_client import AsyncClient
from windowkv_client._calls import cache_name
from windowkv_client._channel import MAX_MESSAGE_BYTES
from windowkv_client._client import Client
from windowkv_client._errors import Unauthenticated, WindowKVError
from windowkv_client._models import Cache
from windowkv_client.testing._faults import Faults, rich_status
from windowkv_client.testing._library import Library
from windowkv_client.testing._services import CacheServicer, GenerationServicer, ModelServicer, World


class InProcessServer:
    """Serves on a free port of the loopback, or on listen, from `with` to its end.

    answers: question → answer, for inputs that are to be answered by script. token: demand it of callers.
    max_tokens: the longest prompt. clock: seconds since the epoch; hand in your own to let caches expire.
    """

    def __init__(
        self,
        *,
        answers: Mapping[str, str] | None = None,
        listen: str = "127.0.0.1:0",
        token: str | None = None,
        model_name: str = "copying",
        max_tokens: int = 131_072,
        default_ttl_s: float = 3600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._library = Library(model_name, default_ttl_s, clock)
        self._faults = Faults()
        world = World(self._library, model_name, max_tokens, answers or {}, self._faults)
        self._token = token
        self._server = grpc.server(
            ThreadPoolExecutor(max_workers=16, thread_name_prefix="windowkv-testing"),
            interceptors=[_Door(token)] if token else [],
            options=[("grpc.max_receive_message_length", MAX_MESSAGE_BYTES), ("grpc.so_reuseport", 0)],
        )
        cache_pb2_grpc.add_CacheServiceServicer_to_server(CacheServicer(world), self._server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(GenerationServicer(world), self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(world), self._server)
        self._health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        port = self._server.add_insecure_port(listen)
        self.target = listen if listen.startswith("unix:") else f"{listen.rpartition(':')[0]}:{port}"

    def client(self, **options: Any) -> Client:
        """A client of this server; close it, or use it in a `with`."""
        return Client(self.target, **{"token": self._token, **options})

    def async_client(self, **options: Any) -> AsyncClient:
        return AsyncClient(self.target, **{"token": self._token, **options})

    def evict(self, cache: Cache | str | None = None) -> None:
        """Forget one cache, or all of them, as if every tier had lost it."""
        self._library.evict(None if cache is None else cache_name(cache))

    def fail_next(self, error: WindowKVError, *, method: str = "", after: int = 0) -> None:
        """Let the next call of method ("Generate"; any when empty) fail; a stream, after so many messages."""
        self._faults.plan(method, after, error)

    def set_serving(self, is_serving: bool) -> None:
        """What the health service says."""
        states = health_pb2.HealthCheckResponse
        self._health.set("", states.SERVING if is_serving else states.NOT_SERVING)

    def start(self) -> None:
        self._server.start()
        self.set_serving(True)

    def stop(self, grace_s: float | None = None) -> None:
        """Break off what is running after grace_s. May be called again."""
        self._server.stop(grace_s).wait()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Door(grpc.ServerInterceptor):
    """Lets callers in who bring the token."""

    def __init__(self, token: str) -> None:
        self._expected = f"Bearer {token}"

    def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        if dict(details.invocation_metadata).get("authorization") == self._expected:
            return continuation(details)
        return grpc.unary_unary_rpc_method_handler(_refuse)


def _refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
    status = rich_status(Unauthenticated("a valid API token is needed"), "")
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort returned")
