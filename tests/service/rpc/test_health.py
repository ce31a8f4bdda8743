"""grpc.health.v1: liveness is the engine's heart, readiness that and taking requests."""

from __future__ import annotations

from dataclasses import replace

import grpc
import pytest
from grpc_health.v1 import health_pb2
from served_wire import ServedWire

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
OURS = ["windowkv.v1.CacheService", "windowkv.v1.GenerationService", "windowkv.v1.ModelService"]
READY = ["", "readiness", *OURS]


async def check(wire: ServedWire, service: str) -> int:
    return (await wire.health.Check(health_pb2.HealthCheckRequest(service=service))).status


@pytest.mark.parametrize("service", [*READY, "liveness"])
async def test_a_healthy_worker_serves(wire: ServedWire, service: str) -> None:
    assert await check(wire, service) == SERVING


@pytest.mark.parametrize("change", [{"is_ready": False}, {"is_draining": True}])
async def test_a_worker_that_takes_no_requests_is_alive_but_not_ready(
    wire: ServedWire, change: dict[str, bool]
) -> None:
    wire.engine.health = replace(wire.engine.health, **change)
    assert [await check(wire, service) for service in READY] == [NOT_SERVING] * len(READY)
    assert await check(wire, "liveness") == SERVING


async def test_a_stuck_engine_is_neither(wire: ServedWire) -> None:
    wire.engine.health = replace(wire.engine.health, heartbeat_age_s=1000.0)
    assert await check(wire, "liveness") == await check(wire, "readiness") == NOT_SERVING


async def test_an_unknown_service_is_not_found(wire: ServedWire) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await check(wire, "windowkv.v1.Nothing")
    assert error.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_is_told_of_changes_only(wire: ServedWire) -> None:
    call = wire.health.Watch(health_pb2.HealthCheckRequest(service="readiness"))
    assert (await call.read()).status == SERVING
    wire.engine.health = replace(wire.engine.health, is_ready=False)
    assert (await call.read()).status == NOT_SERVING
    wire.engine.health = replace(wire.engine.health, is_ready=True)
    assert (await call.read()).status == SERVING


async def test_a_watcher_of_an_unknown_service_is_told_so_and_may_wait(wire: ServedWire) -> None:
    call = wire.health.Watch(health_pb2.HealthCheckRequest(service="later"))
    assert (await call.read()).status == SERVICE_UNKNOWN
    assert not call.done()
