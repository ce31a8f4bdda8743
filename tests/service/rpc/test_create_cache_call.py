"""CreateCache: what the engine is asked, and what the caller gets."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
from byte_tokenizer import BEGIN
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from served_wire import ServedWire

from windowkv.v1 import cache_pb2, types_pb2
from windowkv_service.domain.codec import Codec
from windowkv_service.domain.requests import Compression, CreateRequest, Durability, Retention, Task

DOCUMENT = types_pb2.Input(text="doc")


async def create(wire: ServedWire, **cache: Any) -> list[cache_pb2.CreateCacheResponse]:
    request = cache_pb2.CreateCacheRequest(cache=cache_pb2.Cache(**cache), input=DOCUMENT)
    return [event async for event in wire.caches.CreateCache(request)]


async def created_with(wire: ServedWire, **cache: Any) -> CreateRequest:
    """What the engine was asked."""
    await create(wire, **cache)
    request = wire.engine.requests[-1]
    assert isinstance(request, CreateRequest)
    return request


async def test_what_is_absent_takes_the_domains_defaults(wire: ServedWire) -> None:
    request = await created_with(wire)
    assert request == CreateRequest(request.request_id, "default", (BEGIN, *b"doc"))


async def test_everything_that_may_be_set_arrives(wire: ServedWire) -> None:
    request = await created_with(
        wire,
        model="tiny",
        display_name="contract 17",
        labels={"team": "legal", "a/b.c": "é x"},
        alias="contract-17",
        pinned=True,
        ttl=Duration(seconds=90, nanos=500_000_000),
        compression=cache_pb2.Compression(
            method="sink",
            kept_ratio=0.5,
            task=cache_pb2.TASK_AGGREGATION,
            retention=cache_pb2.RETENTION_SELECTED,
            min_fidelity=0.9,
            codec=types_pb2.CODEC_INT4,
        ),
        durability=cache_pb2.DURABILITY_REDIS,
    )
    assert request == CreateRequest(
        request.request_id,
        "default",
        (BEGIN, *b"doc"),
        compression=Compression("sink", 0.5, Task.AGGREGATION, Retention.SELECTED, 0.9, Codec.INT4),
        ttl_s=90.5,
        pinned=True,
        display_name="contract 17",
        labels={"team": "legal", "a/b.c": "é x"},
        alias="contract-17",
        durability=Durability.REDIS,
    )


async def test_a_codec_that_is_not_said_is_the_services(wire: ServedWire) -> None:
    wire.engine.model = replace(wire.engine.model, default_codec=Codec.FP8)
    assert (await created_with(wire)).compression.codec is Codec.FP8
    exact = cache_pb2.Compression(codec=types_pb2.CODEC_EXACT)
    assert (await created_with(wire, compression=exact)).compression.codec is Codec.EXACT


async def test_an_expire_time_becomes_seconds_from_now(wire: ServedWire) -> None:
    expire_time = Timestamp(seconds=int(time.time()) + 3600)
    request = await created_with(wire, expire_time=expire_time)
    assert request.ttl_s == pytest.approx(3600, abs=60)


async def test_a_conversation_is_left_open_for_the_next_turn(wire: ServedWire) -> None:
    messages = types_pb2.ChatMessages(messages=[types_pb2.ChatMessage(role="user", content="a")])
    request = cache_pb2.CreateCacheRequest(input=types_pb2.Input(messages=messages))
    assert [event async for event in wire.caches.CreateCache(request)]
    asked = wire.engine.requests[-1]
    assert isinstance(asked, CreateRequest)
    assert asked.token_ids == (BEGIN, *b"user:a\n")


async def test_progress_comes_first_and_the_cache_last(wire: ServedWire) -> None:
    progress, created = await create(wire)
    assert progress.WhichOneof("event") == "progress"
    assert (progress.progress.done_token_count, progress.progress.token_count) == (2, 4)
    assert created.WhichOneof("event") == "created"
    assert not created.created.is_hit
    assert created.created.prefill_duration.ToMilliseconds() == 1500
    assert created.created.queue_duration.ToMilliseconds() == 250


async def test_the_same_prompt_again_is_a_hit(wire: ServedWire) -> None:
    await create(wire)
    assert (await create(wire))[-1].created.is_hit


async def test_every_field_of_the_cache_arrives(wire: ServedWire) -> None:
    cache = (await create(wire, display_name="d", labels={"k": "v"}, alias="a", pinned=True))[
        -1
    ].created.cache
    expected = cache_pb2.Cache(
        name=cache.name,
        model="tiny",
        display_name="d",
        labels={"k": "v"},
        alias="a",
        pinned=True,
        expire_time=Timestamp(seconds=1_700_003_600),
        compression=cache_pb2.Compression(
            method="windowkv",
            kept_ratio=0.12,
            task=cache_pb2.TASK_AUTO,
            retention=cache_pb2.RETENTION_FULL,
            codec=types_pb2.CODEC_EXACT,
        ),
        durability=cache_pb2.DURABILITY_DEVICE,
        state=cache_pb2.CACHE_STATE_READY,
        create_time=Timestamp(seconds=1_700_000_000),
        update_time=Timestamp(seconds=1_700_000_001),
        last_used_time=Timestamp(seconds=1_700_000_002),
        token_count=4,
        kept_token_count=8,
        full_bytes=1000,
        stored_bytes=120,
        index_bytes=20,
        bytes_by_tier=[
            cache_pb2.TierBytes(tier=types_pb2.TIER_DEVICE, size_bytes=120),
            cache_pb2.TierBytes(tier=types_pb2.TIER_HOST, size_bytes=1000),
        ],
        tier=types_pb2.TIER_DEVICE,
        hit_count=3,
        fidelity=0.875,
    )
    assert cache == expected
    unset = {field.name for field in cache_pb2.Cache.DESCRIPTOR.fields} - {
        f.name for f, _ in expected.ListFields()
    }
    assert unset == {"ttl"}, "the test names every field that is ever shown"
