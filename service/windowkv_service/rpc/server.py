"""The server: services, health, reflection, TLS and limits around an engine. The door of this room."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import grpc
from grpc import aio
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from windowkv.v1 import (
    cache_pb2,
    cache_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)
from windowkv_service.rpc.auth import Authenticator
from windowkv_service.rpc.engine_client import EngineClient, Tokenizer
from windowkv_service.rpc.health import HealthServicer
from windowkv_service.rpc.interceptors import AuthInterceptor, CallInterceptor, CallMetrics
from windowkv_service.rpc.prompts import PromptReader
from windowkv_service.rpc.servicers.cache import CacheServicer
from windowkv_service.rpc.servicers.generation import GenerationServicer
from windowkv_service.rpc.servicers.model import ModelServicer
from windowkv_service.rpc.tls import TlsFiles, server_credentials
from windowkv_service.telemetry import get_logger

MIB = 1 << 20
OUR_SERVICES = tuple(
    file.DESCRIPTOR.services_by_name[name].full_name
    for file, name in (
        (cache_pb2, "CacheService"),
        (generation_pb2, "GenerationService"),
        (model_pb2, "ModelService"),
    )
)
HEALTH_SERVICE = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name

log = get_logger(__name__)


@dataclass(frozen=True)
class ServerSettings:
    """Everything that is chosen about the wire. Sizes in bytes, durations in seconds."""

    listen: str = "127.0.0.1:50051"  # HOST:PORT, 0 for a free port; or unix:PATH
    tls: TlsFiles | None = None
    tokens: Mapping[str, str] = field(default_factory=dict)  # bearer token → tenant; empty: open to all
    has_reflection: bool = True
    max_message_bytes: int = 32 * MIB  # a million token ids are 3 to 5 MiB
    heartbeat_limit_s: float = 120.0  # an engine silent for longer is reported as not live
    health_interval_s: float = 0.5  # how often a watched health is looked at


class Server:
    """Serves one engine. Start and stop on the same event loop; a server is started once."""

    def __init__(
        self,
        engine: EngineClient,
        tokenizer: Tokenizer,
        settings: ServerSettings,
        metrics: CallMetrics | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._reader = PromptReader(tokenizer)
        self._interceptors = (CallInterceptor(metrics), AuthInterceptor(Authenticator(settings.tokens)))
        self._health = HealthServicer(
            engine,
            OUR_SERVICES,
            heartbeat_limit_s=settings.heartbeat_limit_s,
            interval_s=settings.health_interval_s,
        )
        self._server: aio.Server | None = None
        self._credentials: grpc.ServerCredentials | None = (
            None  # kept: gRPC calls back into it at every handshake
        )

    async def start(self) -> int:
        """Bind and serve; answers the port.

        RuntimeError when the address cannot be bound; OSError when a TLS file is missing or does not fit.
        """
        if self._settings.tls is not None:
            self._credentials = server_credentials(self._settings.tls)
        self._server = aio.server(interceptors=self._interceptors, options=_options(self._settings))
        self._add_services(self._server)
        port = self._bind(self._server)
        await self._server.start()
        log.info("serving", listen=self._settings.listen, port=port, tls=self._settings.tls is not None)
        return port

    def drain(self) -> None:
        """Report not ready from now on, while calls are still served: balancers stop sending new ones."""
        self._health.drain()

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls at once, let running ones finish for grace_s, then cancel them."""
        self.drain()
        if self._server is not None:
            await self._server.stop(grace_s)

    async def wait(self) -> None:
        """Until the server has been stopped."""
        if self._server is not None:
            await self._server.wait_for_termination()

    def _add_services(self, server: aio.Server) -> None:
        engine, reader = self._engine, self._reader
        cache_pb2_grpc.add_CacheServiceServicer_to_server(CacheServicer(engine, reader), server)
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(
            GenerationServicer(engine, reader), server
        )
        model_pb2_grpc.add_ModelServiceServicer_to_server(ModelServicer(engine, reader), server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        if self._settings.has_reflection:
            names = (*OUR_SERVICES, HEALTH_SERVICE, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, server)

    def _bind(self, server: aio.Server) -> int:
        listen = self._settings.listen
        if self._credentials is not None:
            return server.add_secure_port(listen, self._credentials)
        if not listen.startswith(("127.", "localhost:", "[::1]", "unix:")):
            log.warning("serving without TLS beyond this machine", listen=listen)
        return server.add_insecure_port(listen)


def _options(settings: ServerSettings) -> tuple[tuple[str, int], ...]:
    """What is not gRPC's default.

    Keep-alive tolerates clients that ping every ten seconds. Connections are renewed every ten minutes, so that clients
    look for new workers; what runs on an old one has an hour to finish. Concurrent calls are not limited here: that
    would refuse health probes too, and the engine's queue is bounded.
    """
    return (
        ("grpc.max_receive_message_length", settings.max_message_bytes),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.max_connection_age_ms", 600_000),
        ("grpc.max_connection_age_grace_ms", 3_600_000),
        ("grpc.max_concurrent_streams", 256),
        ("grpc.so_reuseport", 0),
    )
