"""The error family as gRPC statuses: complete, and everything a program needs arrives."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from refusals import refusal_of
from served_wire import ServedWire

from windowkv.v1 import cache_pb2, generation_pb2, types_pb2
from windowkv_service import errors
from windowkv_service.errors import CacheFull, WindowKVError

PREFIX = "ERROR_REASON_"
GET = cache_pb2.GetCacheRequest(name=f"caches/{'a' * 40}")


def family(base: type[WindowKVError] = WindowKVError) -> Iterator[type[WindowKVError]]:
    yield base
    for child in base.__subclasses__():
        yield from family(child)


def test_the_wires_reasons_are_the_familys_reasons() -> None:
    on_the_wire = {name.removeprefix(PREFIX) for name in types_pb2.ErrorReason.keys()}  # noqa: SIM118
    assert on_the_wire - {"UNSPECIFIED"} == {error.reason for error in family()}


def test_every_member_has_a_reason_of_its_own() -> None:
    assert len({error.reason for error in family()}) == len(list(family()))


@pytest.mark.parametrize("error", list(family()), ids=lambda error: error.reason)
async def test_every_error_arrives_with_its_status_and_reason(
    wire: ServedWire, error: type[WindowKVError]
) -> None:
    wire.engine.trouble = error("what happened")
    refusal = await refusal_of(wire.caches.GetCache(GET))
    assert grpc.StatusCode[refusal.code].name == error.status
    assert (refusal.reason, refusal.message, refusal.domain) == (error.reason, "what happened", "windowkv")
    assert (refusal.field, refusal.retry_after_s) == (None, None)


async def test_an_error_arrives_in_a_stream_as_well(wire: ServedWire) -> None:
    wire.engine.trouble = CacheFull("no room", retry_after_s=1.5)
    call = wire.generation.Generate(generation_pb2.GenerateRequest(input=types_pb2.Input(text="x")))
    refusal = await refusal_of(call.read())
    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "CACHE_FULL")
    assert refusal.retry_after_s == 1.5


async def test_a_field_of_the_engines_is_named_as_the_caller_knows_it(wire: ServedWire) -> None:
    wire.engine.trouble = errors.PromptTooLong("too long", field="token_ids")
    call = wire.generation.Generate(generation_pb2.GenerateRequest(input=types_pb2.Input(text="x")))
    assert (await refusal_of(call.read())).field == "input"


async def test_a_fault_of_ours_says_nothing_of_its_inside(wire: ServedWire) -> None:
    wire.engine.trouble = RuntimeError("secret detail")
    refusal = await refusal_of(wire.caches.GetCache(GET))
    assert (refusal.code, refusal.reason, refusal.message) == ("INTERNAL", "INTERNAL", "internal error")


async def test_an_unknown_method_is_unimplemented(wire: ServedWire) -> None:
    call = wire.channel.unary_unary("/windowkv.v1.CacheService/StealCache")
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call(b"")
    assert error.value.code() is grpc.StatusCode.UNIMPLEMENTED
