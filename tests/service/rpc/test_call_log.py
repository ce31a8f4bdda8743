"""What is said about a call: its request id to the caller, one line to the log, counts to the metrics."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import structlog
from grpc import aio
from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry
from refusals import refusal_of
from served_wire import ServedWire, serve_wire

from windowkv.v1 import cache_pb2, generation_pb2, types_pb2
from windowkv_service.domain.requests import GenerateRequest
from windowkv_service.errors import QueueFull
from windowkv_service.rpc.server import ServerSettings
from windowkv_service.telemetry import GrpcMetrics, configure_logging

SECRET = "a very private question"
GET = "/windowkv.v1.CacheService/GetCache"
GENERATE = "/windowkv.v1.GenerationService/Generate"
ABSENT = cache_pb2.GetCacheRequest(name=f"caches/{'0' * 40}")


@pytest.fixture
def log_stream() -> Iterator[io.StringIO]:
    """What is logged; logging is put back afterwards as it was."""
    root, stream = logging.getLogger(), io.StringIO()
    loggers = [root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))]
    before = [(one, one.handlers[:], one.propagate) for one in loggers]
    level = root.level
    configure_logging("debug", "json", stream)
    yield stream
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.setLevel(level)
    for logger, handlers, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate


def question(**fields: Any) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(input=types_pb2.Input(text=SECRET), **fields)


async def finished(call: aio.UnaryStreamCall) -> dict[str, str]:
    """The call's initial metadata, once it is over."""
    async for _ in call:
        pass
    return dict(await call.initial_metadata())


async def refused_without_details(call: aio.Call) -> None:
    assert await call.code() is not grpc.StatusCode.OK


async def calls(stream: io.StringIO, count: int) -> list[dict[str, Any]]:
    """The log's first `count` lines about calls; the last may come just after the client's own end."""
    while True:
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        found = [line for line in lines if line["event"] == "call"]
        if len(found) >= count:
            return found[:count]
        await asyncio.sleep(0.01)


async def test_the_messages_request_id_goes_to_the_engine_and_back(wire: ServedWire) -> None:
    metadata = (("x-request-id", "from-metadata"),)
    answered = await finished(wire.generation.Generate(question(request_id="own"), metadata=metadata))
    request = wire.engine.requests[-1]
    assert isinstance(request, GenerateRequest)
    assert (answered["x-request-id"], request.request_id) == ("own", "own")


async def test_the_metadatas_request_id_serves_calls_whose_message_has_none(wire: ServedWire) -> None:
    await wire.create()
    call = wire.caches.ListCaches(cache_pb2.ListCachesRequest(), metadata=(("x-request-id", "17"),))
    await call
    assert dict(await call.initial_metadata())["x-request-id"] == "17"


async def test_a_request_without_an_id_gets_one_of_its_own(wire: ServedWire) -> None:
    ids = {(await finished(wire.generation.Generate(question())))["x-request-id"] for _ in range(3)}
    assert len(ids) == 3


async def test_a_refusal_names_its_request(wire: ServedWire) -> None:
    call = wire.caches.GetCache(ABSENT, metadata=(("x-request-id", "17"),))
    assert (await refusal_of(call)).request_id == "17"
    assert dict(await call.trailing_metadata())["x-request-id"] == "17"


async def test_a_call_is_one_line_in_the_log_without_its_text(
    log_stream: io.StringIO, wire: ServedWire
) -> None:
    await finished(wire.generation.Generate(question(request_id="r1")))
    [line] = await calls(log_stream, 1)
    assert line["duration_s"] >= 0
    known = {
        "method": GENERATE,
        "code": "OK",
        "reason": "",
        "request_id": "r1",
        "tenant": "default",
        "level": "info",
    }
    assert line.items() >= known.items()
    assert SECRET not in log_stream.getvalue()


async def test_a_refusal_is_logged_with_its_reason(log_stream: io.StringIO, wire: ServedWire) -> None:
    await refusal_of(wire.caches.GetCache(ABSENT))
    wire.engine.trouble = QueueFull("later", retry_after_s=1.0)
    await refusal_of(wire.caches.GetCache(ABSENT))
    not_found, queue_full = await calls(log_stream, 2)
    assert (not_found["code"], not_found["reason"], not_found["level"]) == (
        "NOT_FOUND",
        "CACHE_NOT_FOUND",
        "info",
    )
    assert (queue_full["code"], queue_full["level"]) == ("RESOURCE_EXHAUSTED", "warning")


async def test_a_fault_is_logged_once_with_its_traceback(log_stream: io.StringIO, wire: ServedWire) -> None:
    wire.engine.trouble = RuntimeError("what nobody expected")
    await refusal_of(wire.caches.GetCache(ABSENT))
    [line] = await calls(log_stream, 1)
    assert (line["code"], line["level"]) == ("INTERNAL", "error")
    assert log_stream.getvalue().count("RuntimeError: what nobody expected") == 1


async def test_a_cancelled_call_is_logged_as_one(log_stream: io.StringIO, wire: ServedWire) -> None:
    wire.engine.hold = True
    call = wire.generation.Generate(question())
    await wire.engine.entered.wait()
    call.cancel()
    [line] = await calls(log_stream, 1)
    assert (line["method"], line["code"]) == (GENERATE, "CANCELLED")


async def test_a_call_whose_deadline_passed_is_logged_as_one(
    log_stream: io.StringIO, wire: ServedWire
) -> None:
    wire.engine.hold = True
    await refused_without_details(wire.generation.Generate(question(), timeout=0.1))
    [line] = await calls(log_stream, 1)
    assert (line["method"], line["code"]) == (GENERATE, "DEADLINE_EXCEEDED")


async def test_a_probe_is_logged_for_debugging_only(log_stream: io.StringIO, wire: ServedWire) -> None:
    await wire.health.Check(health_pb2.HealthCheckRequest())
    await refused_without_details(wire.health.Check(health_pb2.HealthCheckRequest(service="nothing")))
    found, unknown = await calls(log_stream, 2)
    assert (found["code"], found["level"]) == ("OK", "debug")
    assert (unknown["code"], unknown["level"]) == ("NOT_FOUND", "debug")


async def test_calls_are_counted_by_method_and_status() -> None:
    registry = CollectorRegistry()
    async with serve_wire(ServerSettings(listen="127.0.0.1:0"), GrpcMetrics(registry)) as wire:
        await finished(wire.generation.Generate(question()))
        await refusal_of(wire.caches.GetCache(ABSENT))
    for method, call_type, code in ((GENERATE, "server_stream", "OK"), (GET, "unary", "NotFound")):
        service, name = method.strip("/").split("/")
        labels = {"grpc_type": call_type, "grpc_service": service, "grpc_method": name}
        assert registry.get_sample_value("grpc_server_started_total", labels) == 1
        assert registry.get_sample_value("grpc_server_handling_seconds_count", labels) == 1
        assert registry.get_sample_value("grpc_server_handled_total", labels | {"grpc_code": code}) == 1
