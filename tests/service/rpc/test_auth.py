"""API tokens: who is let in, and as whom."""

from __future__ import annotations

import asyncio

import pytest
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from refusals import refusal_of
from served_wire import ServedWire

from windowkv.v1 import cache_pb2, generation_pb2, model_pb2, types_pb2
from windowkv_service.domain.requests import ListRequest
from windowkv_service.rpc.server import ServerSettings

TOKENS = {"token-a": "tenant-a", "token-b": "tenant-b"}
LIST = cache_pb2.ListCachesRequest()
INPUT = types_pb2.Input(text="x")


@pytest.fixture
def settings() -> ServerSettings:
    return ServerSettings(listen="127.0.0.1:0", tokens=TOKENS)


def bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


@pytest.mark.parametrize(("token", "tenant"), TOKENS.items())
async def test_a_token_is_its_tenant(wire: ServedWire, token: str, tenant: str) -> None:
    await wire.caches.ListCaches(LIST, metadata=bearer(token))
    assert wire.engine.requests == [ListRequest(tenant, page_size=0)]


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        bearer(""),
        bearer("token-c"),
        bearer("token-"),
        bearer("tenant-a"),
        (("authorization", "token-a"),),
        (("authorization", "Basic token-a"),),
    ],
)
async def test_without_a_known_token_nothing_is_answered(
    wire: ServedWire, metadata: tuple[tuple[str, str], ...]
) -> None:
    refusal = await refusal_of(wire.caches.ListCaches(LIST, metadata=metadata))
    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    assert wire.engine.requests == []


@pytest.mark.parametrize(
    ("service", "method", "request_"),
    [
        ("generation", "Generate", generation_pb2.GenerateRequest(input=INPUT)),
        ("caches", "CreateCache", cache_pb2.CreateCacheRequest(input=INPUT)),
    ],
)
async def test_streams_are_closed_to_strangers_too(
    wire: ServedWire, service: str, method: str, request_: Message
) -> None:
    call = getattr(getattr(wire, service), method)(request_)
    assert (await refusal_of(call.read())).code == "UNAUTHENTICATED"


async def test_the_tokenizer_is_closed_to_strangers_too(wire: ServedWire) -> None:
    refusal = await refusal_of(wire.models.Tokenize(model_pb2.TokenizeRequest(input=INPUT)))
    assert refusal.code == "UNAUTHENTICATED"


async def test_the_schemes_name_is_not_case_sensitive(wire: ServedWire) -> None:
    assert await wire.caches.ListCaches(LIST, metadata=(("authorization", "bearer token-a"),))


async def test_probes_need_no_token(wire: ServedWire) -> None:
    answer = await wire.health.Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_calls_at_the_same_time_are_not_mixed_up(wire: ServedWire) -> None:
    tokens = list(TOKENS) * 20
    await asyncio.gather(
        *(
            wire.caches.ListCaches(cache_pb2.ListCachesRequest(page_size=number), metadata=bearer(token))
            for number, token in enumerate(tokens)
        )
    )
    expected = [ListRequest(TOKENS[token], page_size=number) for number, token in enumerate(tokens)]
    assert sorted(wire.engine.requests, key=lambda request: request.page_size) == expected


async def test_a_foreign_cache_and_an_unknown_one_are_answered_alike(wire: ServedWire) -> None:
    request = cache_pb2.CreateCacheRequest(input=INPUT)
    call = wire.caches.CreateCache(request, metadata=bearer("token-a"))
    name = [event async for event in call][-1].created.cache.name
    refusals = []
    for asked in (name, f"caches/{'0' * 40}"):
        get = wire.caches.GetCache(cache_pb2.GetCacheRequest(name=asked), metadata=bearer("token-b"))
        refusal = await refusal_of(get)
        refusals.append((refusal.code, refusal.reason, refusal.message.replace(asked, "NAME"), refusal.field))
    assert refusals[0] == refusals[1]
    assert refusals[0][:2] == ("NOT_FOUND", "CACHE_NOT_FOUND")
