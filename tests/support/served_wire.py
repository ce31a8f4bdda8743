"""The wire room served on loopback with an engine in memory, and a channel to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from byte_tokenizer import ByteTokenizer
from grpc import aio
from grpc_health.v1 import health_pb2_grpc
from memory_engine import MemoryEngine

from windowkv.v1 import cache_pb2, cache_pb2_grpc, generation_pb2_grpc, model_pb2_grpc, types_pb2
from windowkv_service.rpc.interceptors import CallMetrics
from windowkv_service.rpc.server import Server, ServerSettings


@dataclass
class ServedWire:
    engine: MemoryEngine
    server: Server
    port: int
    channel: aio.Channel

    def __post_init__(self) -> None:
        self.caches = cache_pb2_grpc.CacheServiceStub(self.channel)
        self.generation = generation_pb2_grpc.GenerationServiceStub(self.channel)
        self.models = model_pb2_grpc.ModelServiceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    async def create(self, text: str = "a document", **cache: Any) -> cache_pb2.Cache:
        """A new cache; the keywords are the Cache message's fields."""
        request = cache_pb2.CreateCacheRequest(
            cache=cache_pb2.Cache(**cache), input=types_pb2.Input(text=text)
        )
        return [event async for event in self.caches.CreateCache(request)][-1].created.cache


@asynccontextmanager
async def serve_wire(
    settings: ServerSettings, metrics: CallMetrics | None = None
) -> AsyncIterator[ServedWire]:
    engine = MemoryEngine()
    server = Server(engine, ByteTokenizer(), settings, metrics)
    port = await server.start()
    try:
        async with aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield ServedWire(engine, server, port, channel)
    finally:
        await server.stop(0)
