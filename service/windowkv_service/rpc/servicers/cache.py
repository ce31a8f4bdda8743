"""CacheService."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from dataclasses import replace

from windowkv.v1 import cache_pb2, cache_pb2_grpc
from windowkv_service.domain.results import DeleteReceipt
from windowkv_service.errors import CacheNotFound
from windowkv_service.rpc.call import Context, current_call
from windowkv_service.rpc.convert.cache import (
    to_create_request,
    to_create_response,
    to_delete_response,
    to_list_request,
    to_list_response,
    to_wire_cache,
)
from windowkv_service.rpc.convert.update import to_update_request
from windowkv_service.rpc.engine_client import EngineClient
from windowkv_service.rpc.names import check_cache_name
from windowkv_service.rpc.prompts import PROMPT, PromptReader


class CacheServicer(cache_pb2_grpc.CacheServiceServicer):
    def __init__(self, engine: EngineClient, reader: PromptReader) -> None:
        self._engine = engine
        self._reader = reader

    async def CreateCache(
        self, request: cache_pb2.CreateCacheRequest, context: Context
    ) -> AsyncGenerator[cache_pb2.CreateCacheResponse, None]:
        creation = to_create_request(request, current_call.get(), self._engine.model, time.time())
        token_ids = tuple(await self._reader.read(request.input, PROMPT))
        async with aclosing(self._engine.create_cache(replace(creation, token_ids=token_ids))) as events:
            async for event in events:
                yield to_create_response(event)

    async def GetCache(
        self, request: cache_pb2.GetCacheRequest, context: Context
    ) -> cache_pb2.GetCacheResponse:
        name = check_cache_name(request.name, "name")
        cache = await self._engine.get_cache(current_call.get().tenant, name)
        return cache_pb2.GetCacheResponse(cache=to_wire_cache(cache))

    async def ListCaches(
        self, request: cache_pb2.ListCachesRequest, context: Context
    ) -> cache_pb2.ListCachesResponse:
        listing = to_list_request(request, current_call.get().tenant)
        return to_list_response(await self._engine.list_caches(listing))

    async def UpdateCache(
        self, request: cache_pb2.UpdateCacheRequest, context: Context
    ) -> cache_pb2.UpdateCacheResponse:
        update = to_update_request(request, current_call.get().tenant, time.time())
        return cache_pb2.UpdateCacheResponse(cache=to_wire_cache(await self._engine.update_cache(update)))

    async def DeleteCache(
        self, request: cache_pb2.DeleteCacheRequest, context: Context
    ) -> cache_pb2.DeleteCacheResponse:
        name = check_cache_name(request.name, "name")
        receipt = DeleteReceipt(confirmed=(), unreachable=())
        forgiven = (CacheNotFound,) if request.allow_missing else ()
        with suppress(*forgiven):
            receipt = await self._engine.delete_cache(current_call.get().tenant, name)
        return to_delete_response(receipt)
