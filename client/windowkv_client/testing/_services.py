"""The public services over the library and the stand-in model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import grpc

from windowkv.v1 import (
    cache_pb2,
    cache_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
    types_pb2,
)
from windowkv_client._errors import ModelMismatch
from windowkv_client.testing import _copying as model
from windowkv_client.testing import _limits as limits
from windowkv_client.testing._faults import Faults, answer, stream
from windowkv_client.testing._library import BYTES_PER_TOKEN, WINDOW_SIZE, Library

CHUNK_TOKENS = 512  # per progress event


@dataclass
class World:
    """What the three services share."""

    library: Library
    model_name: str
    max_tokens: int
    answers: Mapping[str, str]
    faults: Faults = field(default_factory=Faults)

    def check_model(self, name: str, where: str = "model") -> None:
        if name not in ("", self.model_name):
            raise ModelMismatch(f"this worker serves {self.model_name!r}", field=where)


class CacheServicer(cache_pb2_grpc.CacheServiceServicer):
    def __init__(self, world: World) -> None:
        self._world = world

    def CreateCache(
        self, request: cache_pb2.CreateCacheRequest, context: grpc.ServicerContext
    ) -> Iterator[cache_pb2.CreateCacheResponse]:
        return stream(context, self._world.faults, "CreateCache", lambda: self._create(request))

    def _create(self, request: cache_pb2.CreateCacheRequest) -> Iterator[cache_pb2.CreateCacheResponse]:
        self._world.check_model(request.cache.model, "cache.model")
        token_ids = limits.prompt_tokens(request.input)
        limits.check_length(len(token_ids), self._world.max_tokens)
        cache, is_hit = self._world.library.create(request.cache, token_ids)
        for done in range(0, len(token_ids), CHUNK_TOKENS) if not is_hit else ():
            progress = cache_pb2.PrefillProgress(done_token_count=done, token_count=len(token_ids))
            yield cache_pb2.CreateCacheResponse(progress=progress)
        created = cache_pb2.CacheCreated(cache=cache, is_hit=is_hit)
        created.reused_token_count = len(token_ids) if is_hit else 0
        yield cache_pb2.CreateCacheResponse(created=created)

    def GetCache(
        self, request: cache_pb2.GetCacheRequest, context: grpc.ServicerContext
    ) -> cache_pb2.GetCacheResponse:
        def get() -> cache_pb2.GetCacheResponse:
            return cache_pb2.GetCacheResponse(cache=self._world.library.show(request.name))

        return answer(context, self._world.faults, "GetCache", get)

    def ListCaches(
        self, request: cache_pb2.ListCachesRequest, context: grpc.ServicerContext
    ) -> cache_pb2.ListCachesResponse:
        return answer(context, self._world.faults, "ListCaches", lambda: self._world.library.page(request))

    def UpdateCache(
        self, request: cache_pb2.UpdateCacheRequest, context: grpc.ServicerContext
    ) -> cache_pb2.UpdateCacheResponse:
        def update() -> cache_pb2.UpdateCacheResponse:
            return cache_pb2.UpdateCacheResponse(cache=self._world.library.update(request))

        return answer(context, self._world.faults, "UpdateCache", update)

    def DeleteCache(
        self, request: cache_pb2.DeleteCacheRequest, context: grpc.ServicerContext
    ) -> cache_pb2.DeleteCacheResponse:
        return answer(context, self._world.faults, "DeleteCache", lambda: self._delete(request))

    def _delete(self, request: cache_pb2.DeleteCacheRequest) -> cache_pb2.DeleteCacheResponse:
        limits.check_name(request.name, "name")
        if request.allow_missing and not self._world.library.has(request.name):
            return cache_pb2.DeleteCacheResponse()
        self._world.library.delete(request.name)
        return cache_pb2.DeleteCacheResponse(confirmed_tiers=[types_pb2.TIER_DEVICE])


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    def __init__(self, world: World) -> None:
        self._world = world

    def Generate(
        self, request: generation_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[generation_pb2.GenerateResponse]:
        return stream(context, self._world.faults, "Generate", lambda: self._generate(request))

    def _generate(self, request: generation_pb2.GenerateRequest) -> Iterator[generation_pb2.GenerateResponse]:
        self._world.check_model(request.model)
        limits.check_sampling(request.sampling)
        limits.check_selection(request.selection)
        new = limits.prompt_tokens(request.input, may_be_empty=bool(request.cache))
        cached = self._world.library.use(request.cache) if request.cache else []
        limits.check_length(len(cached) + len(new), self._world.max_tokens)
        question = limits.question_of(request.input)
        yield from _Writer(request.sampling, cached, new, question).write(self._world.answers)


class ModelServicer(model_pb2_grpc.ModelServiceServicer):
    def __init__(self, world: World) -> None:
        self._world = world

    def GetModel(
        self, request: model_pb2.GetModelRequest, context: grpc.ServicerContext
    ) -> model_pb2.GetModelResponse:
        return answer(context, self._world.faults, "GetModel", lambda: self._show(request))

    def _show(self, request: model_pb2.GetModelRequest) -> model_pb2.GetModelResponse:
        self._world.check_model(request.model)
        shown = model_pb2.Model(
            name=self._world.model_name,
            architecture="Copying",
            vocab_size=model.VOCAB_SIZE,
            max_tokens=self._world.max_tokens,
            num_layers=1,
            num_kv_heads=1,
            head_dim=BYTES_PER_TOKEN // 8,
            window_size=WINDOW_SIZE,
            dtype="float32",
            kv_bytes_per_token=BYTES_PER_TOKEN,
            methods=limits.METHODS,
            default_codec=types_pb2.CODEC_EXACT,
        )
        status = model_pb2.WorkerStatus(is_ready=True)
        status.tiers.add(tier=types_pb2.TIER_DEVICE, health=model_pb2.TIER_HEALTH_UP)
        return model_pb2.GetModelResponse(model=shown, status=status)

    def CountTokens(
        self, request: model_pb2.CountTokensRequest, context: grpc.ServicerContext
    ) -> model_pb2.CountTokensResponse:
        def count() -> model_pb2.CountTokensResponse:
            self._world.check_model(request.model)
            return model_pb2.CountTokensResponse(token_count=len(limits.prompt_tokens(request.input)))

        return answer(context, self._world.faults, "CountTokens", count)

    def Tokenize(
        self, request: model_pb2.TokenizeRequest, context: grpc.ServicerContext
    ) -> model_pb2.TokenizeResponse:
        def tokenize() -> model_pb2.TokenizeResponse:
            self._world.check_model(request.model)
            return model_pb2.TokenizeResponse(token_ids=limits.prompt_tokens(request.input))

        return answer(context, self._world.faults, "Tokenize", tokenize)

    def Detokenize(
        self, request: model_pb2.DetokenizeRequest, context: grpc.ServicerContext
    ) -> model_pb2.DetokenizeResponse:
        def detokenize() -> model_pb2.DetokenizeResponse:
            self._world.check_model(request.model)
            token_ids = limits.checked_tokens(request.token_ids, "token_ids")
            return model_pb2.DetokenizeResponse(text=model.detokenize(token_ids))

        return answer(context, self._world.faults, "Detokenize", detokenize)


class _Writer:
    """One answer: a message per token, then one with the end."""

    def __init__(
        self, sampling: generation_pb2.Sampling, cached: list[int], new: list[int], question: str
    ) -> None:
        self._sampling = sampling
        self._limit = sampling.max_tokens if sampling.HasField("max_tokens") else 128
        self._cached = cached
        self._new = new
        self._question = question
        self._written: list[int] = []

    def write(self, answers: Mapping[str, str]) -> Iterator[generation_pb2.GenerateResponse]:
        finish_reason = generation_pb2.FINISH_REASON_STOP
        told = ""
        for token_id in model.answer(self._cached + self._new, self._question, answers):
            if token_id == model.EOS or token_id in self._sampling.stop_token_ids:
                break
            self._written.append(token_id)
            text, is_stopped = self._text()
            piece, told = text[len(told) :], max(told, text, key=len)
            yield self._message([token_id], piece)
            if is_stopped:
                break
            if len(self._written) >= self._limit:
                finish_reason = generation_pb2.FINISH_REASON_LENGTH
                break
        end = generation_pb2.GenerateResponse(index=len(self._written), finish_reason=finish_reason)
        end.text = self._text(is_whole=True)[0][len(told) :]
        end.usage.CopyFrom(self._usage())
        yield end

    def _text(self, *, is_whole: bool = False) -> tuple[str, bool]:
        """What may be told so far: whole characters, and nothing that a stop string may still claim."""
        text = bytes(self._written).decode(errors="replace" if is_whole else "ignore")
        for stop in self._sampling.stop:
            if (place := text.find(stop)) >= 0:
                return text[:place], True
        if not is_whole:
            held = max((_overlap(text, stop) for stop in self._sampling.stop), default=0)
            text = text[: len(text) - held]
        return text, False

    def _message(self, token_ids: list[int], text: str) -> generation_pb2.GenerateResponse:
        index = len(self._written) - len(token_ids)
        message = generation_pb2.GenerateResponse(index=index, text=text, token_ids=token_ids)
        if self._sampling.HasField("logprobs"):
            message.logprobs.extend(generation_pb2.TokenLogprob(token_id=each) for each in token_ids)
        return message

    def _usage(self) -> generation_pb2.Usage:
        usage = generation_pb2.Usage(
            prompt_tokens=len(self._cached) + len(self._new),
            cached_tokens=len(self._cached),
            kept_tokens=len(self._cached),
            generated_tokens=len(self._written),
            fidelity=1.0,
            device_bytes=len(self._cached) * BYTES_PER_TOKEN,
        )
        if self._cached:
            usage.source_tier = types_pb2.TIER_DEVICE
        else:
            usage.miss_reason = generation_pb2.MISS_REASON_NOT_CACHED
        return usage


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of text begin stop."""
    return next((size for size in range(len(stop) - 1, 0, -1) if text.endswith(stop[:size])), 0)
