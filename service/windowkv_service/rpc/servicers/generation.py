"""GenerationService."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

from windowkv.v1 import generation_pb2, generation_pb2_grpc
from windowkv_service.rpc.call import Context, current_call
from windowkv_service.rpc.convert.generation import to_generate_request, to_generate_response
from windowkv_service.rpc.engine_client import EngineClient
from windowkv_service.rpc.prompts import PromptReader


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    def __init__(self, engine: EngineClient, reader: PromptReader) -> None:
        self._engine = engine
        self._reader = reader

    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> AsyncGenerator[generation_pb2.GenerateResponse, None]:
        generation = to_generate_request(request, current_call.get(), self._engine.model)
        token_ids = tuple(await self._reader.read_question(request.input, is_cached=bool(request.cache)))
        async with aclosing(self._engine.generate(replace(generation, token_ids=token_ids))) as chunks:
            async for chunk in chunks:
                yield to_generate_response(chunk)
