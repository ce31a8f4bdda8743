"""grpc.health.v1, asked of the engine at each check instead of being told.

Services: "liveness" is the engine's loop turning; "readiness", "" and each of windowkv's services mean that
and requests being accepted, until draining begins.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from windowkv_service.rpc.call import Context
from windowkv_service.rpc.engine_client import EngineClient

LIVENESS = "liveness"
READINESS = "readiness"


class HealthServicer(health_pb2_grpc.HealthServicer):
    """heartbeat_limit_s: an engine silent for longer is stuck. interval_s: between two looks of Watch."""

    def __init__(
        self, engine: EngineClient, services: Iterable[str], *, heartbeat_limit_s: float, interval_s: float
    ) -> None:
        self._engine = engine
        self._ready_services = {"", READINESS, *services}
        self._heartbeat_limit_s = heartbeat_limit_s
        self._interval_s = interval_s
        self._draining = asyncio.Event()

    def drain(self) -> None:
        """From now on not ready. Watchers are told and let go, else they would hold up the server's end."""
        self._draining.set()

    def status_of(self, service: str) -> int:
        """A HealthCheckResponse.ServingStatus."""
        if service not in self._ready_services | {LIVENESS}:
            return health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
        status = self._engine.status()
        is_serving = status.heartbeat_age_s <= self._heartbeat_limit_s
        if service != LIVENESS:
            is_serving &= status.is_ready and not status.is_draining and not self._draining.is_set()
        response = health_pb2.HealthCheckResponse
        return response.SERVING if is_serving else response.NOT_SERVING

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> health_pb2.HealthCheckResponse:
        status = self.status_of(request.service)
        if status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return health_pb2.HealthCheckResponse(status=status)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        told: int | None = None
        while True:
            is_last = self._draining.is_set()
            status = self.status_of(request.service)
            if status != told:
                yield health_pb2.HealthCheckResponse(status=status)
                told = status
            if is_last:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._draining.wait(), self._interval_s)
