"""ModelService."""

from __future__ import annotations

from windowkv.v1 import model_pb2, model_pb2_grpc
from windowkv_service.rpc.call import Context
from windowkv_service.rpc.convert.model import check_model, to_wire_model, to_wire_status
from windowkv_service.rpc.engine_client import EngineClient
from windowkv_service.rpc.prompts import CONTINUATION, PROMPT, PromptReader


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, engine: EngineClient, reader: PromptReader) -> None:
        self._engine = engine
        self._reader = reader

    async def GetModel(
        self, request: model_pb2.GetModelRequest, context: Context
    ) -> model_pb2.GetModelResponse:
        check_model(request.model, self._engine.model)
        status = to_wire_status(self._engine.status())
        return model_pb2.GetModelResponse(model=to_wire_model(self._engine.model), status=status)

    async def CountTokens(
        self, request: model_pb2.CountTokensRequest, context: Context
    ) -> model_pb2.CountTokensResponse:
        check_model(request.model, self._engine.model)
        token_ids = await self._reader.read(request.input, PROMPT)
        return model_pb2.CountTokensResponse(token_count=len(token_ids))

    async def Tokenize(
        self, request: model_pb2.TokenizeRequest, context: Context
    ) -> model_pb2.TokenizeResponse:
        check_model(request.model, self._engine.model)
        is_beginning = request.add_special_tokens or not request.HasField("add_special_tokens")
        token_ids = await self._reader.read(request.input, PROMPT if is_beginning else CONTINUATION)
        return model_pb2.TokenizeResponse(token_ids=token_ids)

    async def Detokenize(
        self, request: model_pb2.DetokenizeRequest, context: Context
    ) -> model_pb2.DetokenizeResponse:
        check_model(request.model, self._engine.model)
        text = await self._reader.detokenize(request.token_ids, "token_ids")
        return model_pb2.DetokenizeResponse(text=text)
