"""Calls that end before their answer: the engine's stream is closed, however it happens."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from grpc import aio
from grpc_health.v1 import health_pb2
from memory_engine import ANSWER
from refusals import refusal_of
from served_wire import ServedWire

from windowkv.v1 import cache_pb2, generation_pb2, types_pb2
from windowkv_service.errors import CacheNotFound

INPUT = types_pb2.Input(text="hi")
GENERATE = generation_pb2.GenerateRequest(input=INPUT)
CREATE = cache_pb2.CreateCacheRequest(input=INPUT)


async def status_of(call: aio.UnaryStreamCall) -> grpc.StatusCode:
    return await call.code()


@pytest.mark.parametrize("service", ["caches", "generation"])
async def test_cancelling_a_call_closes_the_engines_stream(wire: ServedWire, service: str) -> None:
    wire.engine.hold = True
    call = wire.caches.CreateCache(CREATE) if service == "caches" else wire.generation.Generate(GENERATE)
    await wire.engine.entered.wait()
    call.cancel()
    await wire.engine.released.wait()


async def test_a_deadline_closes_the_engines_stream(wire: ServedWire) -> None:
    wire.engine.hold = True
    call = wire.generation.Generate(GENERATE, timeout=0.2)
    assert await status_of(call) is grpc.StatusCode.DEADLINE_EXCEEDED
    await wire.engine.released.wait()


async def test_a_client_that_goes_away_closes_the_engines_stream(wire: ServedWire) -> None:
    wire.engine.hold = True
    wire.generation.Generate(GENERATE)
    await wire.engine.entered.wait()
    await wire.channel.close()
    await wire.engine.released.wait()


async def test_cancelling_between_two_pieces_closes_the_engines_stream(wire: ServedWire) -> None:
    wire.engine.answer = ANSWER[:1] * 100_000
    call = wire.generation.Generate(GENERATE)
    assert (await call.read()).text == "h"
    call.cancel()
    await wire.engine.released.wait()


async def test_an_answer_read_to_its_end_closes_the_engines_stream(wire: ServedWire) -> None:
    assert [piece async for piece in wire.generation.Generate(GENERATE)]
    await wire.engine.released.wait()


async def test_an_error_in_the_middle_of_an_answer_arrives_after_what_came_before(wire: ServedWire) -> None:
    wire.engine.trouble_after = CacheNotFound("gone", field="cache")
    call = wire.generation.Generate(GENERATE)
    pieces = [await call.read() for _ in ANSWER]
    assert [piece.text for piece in pieces] == ["h", "i"]
    refusal = await refusal_of(call.read())
    assert (refusal.code, refusal.reason, refusal.field) == ("NOT_FOUND", "CACHE_NOT_FOUND", "cache")


async def test_draining_is_not_ready_but_still_answers(wire: ServedWire) -> None:
    wire.server.drain()
    answer = await wire.health.Check(health_pb2.HealthCheckRequest(service="readiness"))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert [piece async for piece in wire.generation.Generate(GENERATE)]


async def test_a_stopping_server_lets_answers_finish_and_takes_no_new_calls(wire: ServedWire) -> None:
    wire.engine.hold = True
    running = wire.generation.Generate(GENERATE)
    await wire.engine.entered.wait()
    stopping = asyncio.create_task(wire.server.stop(grace_s=50))
    while await status_of_new_call(wire) is not grpc.StatusCode.UNAVAILABLE:
        await asyncio.sleep(0.01)
    wire.engine.go_on.set()
    assert "".join([piece.text async for piece in running]) == "hi"
    await stopping


async def status_of_new_call(wire: ServedWire) -> grpc.StatusCode:
    call = wire.caches.ListCaches(cache_pb2.ListCachesRequest())
    return await call.code()


async def test_answers_that_outlast_the_grace_are_cancelled(wire: ServedWire) -> None:
    wire.engine.hold = True
    call = wire.generation.Generate(GENERATE)
    await wire.engine.entered.wait()
    await wire.server.stop(grace_s=0.1)
    await wire.engine.released.wait()
    assert await status_of(call) in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


async def test_a_watcher_of_health_is_told_and_does_not_hold_up_the_end(wire: ServedWire) -> None:
    call = wire.health.Watch(health_pb2.HealthCheckRequest(service="readiness"))
    assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
    await wire.server.stop(grace_s=50)  # beyond the test's time limit, were the watcher waited for
    assert (await call.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert await call.read() is aio.EOF
