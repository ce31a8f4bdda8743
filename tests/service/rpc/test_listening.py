"""Where and how the server listens."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from byte_tokenizer import ByteTokenizer
from memory_engine import MemoryEngine
from served_wire import ServedWire, serve_wire

from windowkv.v1 import cache_pb2, cache_pb2_grpc, model_pb2, types_pb2
from windowkv_service.rpc.server import Server, ServerSettings

LIST = cache_pb2.ListCachesRequest()


def make_server(settings: ServerSettings) -> Server:
    return Server(MemoryEngine(), ByteTokenizer(), settings)


async def test_a_unix_socket_serves(tmp_path: Path) -> None:
    address = f"unix:{tmp_path}/windowkv.sock"
    server = make_server(ServerSettings(listen=address))
    await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        assert (
            await cache_pb2_grpc.CacheServiceStub(channel).ListCaches(LIST) == cache_pb2.ListCachesResponse()
        )
    await server.stop(0)


async def test_a_taken_port_is_an_error_at_the_start(wire: ServedWire) -> None:
    server = make_server(ServerSettings(listen=f"127.0.0.1:{wire.port}"))
    with pytest.raises(RuntimeError):
        await server.start()


async def test_a_server_that_never_started_may_be_stopped() -> None:
    await make_server(ServerSettings()).stop(0)


async def test_a_stopped_server_may_be_stopped_again(wire: ServedWire) -> None:
    await wire.server.stop(0)
    await wire.server.stop(0)
    await wire.server.wait()


async def test_a_prompt_of_many_megabytes_is_read(wire: ServedWire) -> None:
    text = "x" * (6 << 20)  # beyond gRPC's own limit of 4 MiB
    request = model_pb2.CountTokensRequest(input=types_pb2.Input(text=text))
    assert (await wire.models.CountTokens(request)).token_count == len(text) + 1


async def test_a_message_beyond_the_limit_is_refused() -> None:
    async with serve_wire(ServerSettings(listen="127.0.0.1:0", max_message_bytes=1000)) as wire:
        request = model_pb2.CountTokensRequest(input=types_pb2.Input(text="x" * 2000))
        assert await wire.models.CountTokens(request).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
