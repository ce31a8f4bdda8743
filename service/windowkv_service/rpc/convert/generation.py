"""GenerationService: requests wire → domain, pieces of an answer domain → wire."""

from __future__ import annotations

from typing import Any

from windowkv.v1 import generation_pb2
from windowkv_service.domain.requests import GenerateRequest, QuestionSelection, Sampling
from windowkv_service.domain.results import GenerateChunk, ModelInfo, TokenLogprob, Usage
from windowkv_service.rpc.call import Call
from windowkv_service.rpc.convert.enums import FINISH_REASON, MISS_REASON, QUESTION_SELECTION, TIER
from windowkv_service.rpc.convert.model import check_model
from windowkv_service.rpc.convert.times import to_duration
from windowkv_service.rpc.names import check_cache_name


def to_generate_request(
    request: generation_pb2.GenerateRequest, call: Call, model: ModelInfo
) -> GenerateRequest:
    """All but the tokens."""
    check_model(request.model, model)
    selection = request.selection
    return GenerateRequest(
        request_id=call.request_id,
        tenant=call.tenant,
        deadline=call.deadline,
        token_ids=(),
        cache=check_cache_name(request.cache, "cache") if request.cache else None,
        sampling=to_sampling(request.sampling),
        selection=QUESTION_SELECTION.to_domain(
            selection.mode, "selection.mode", default=QuestionSelection.AUTO
        ),
        kept_ratio=selection.kept_ratio if selection.HasField("kept_ratio") else None,
        min_fidelity=selection.min_fidelity if selection.HasField("min_fidelity") else None,
        reselect_every=selection.reselect_every if selection.HasField("reselect_every") else None,
    )


def to_sampling(sampling: generation_pb2.Sampling) -> Sampling:
    """Fields have the same names in both worlds; what is absent takes the domain's default."""
    given: dict[str, Any] = {field.name: value for field, value in sampling.ListFields()}
    repeated = {"stop": tuple(sampling.stop), "stop_token_ids": tuple(sampling.stop_token_ids)}
    return Sampling(**(given | repeated))


def to_generate_response(chunk: GenerateChunk) -> generation_pb2.GenerateResponse:
    return generation_pb2.GenerateResponse(
        index=chunk.index,
        text=chunk.text,
        token_ids=chunk.token_ids,
        logprobs=[_to_wire_logprob(logprob) for logprob in chunk.logprobs],
        finish_reason=FINISH_REASON.to_wire(chunk.finish_reason),
        usage=None if chunk.usage is None else _to_wire_usage(chunk.usage),
    )


def _to_wire_logprob(logprob: TokenLogprob) -> generation_pb2.TokenLogprob:
    return generation_pb2.TokenLogprob(
        token_id=logprob.token_id,
        logprob=logprob.logprob,
        top=[generation_pb2.TopLogprob(token_id=token_id, logprob=value) for token_id, value in logprob.top],
    )


def _to_wire_usage(usage: Usage) -> generation_pb2.Usage:
    return generation_pb2.Usage(
        prompt_tokens=usage.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        kept_tokens=usage.kept_tokens,
        generated_tokens=usage.generated_tokens,
        source_tier=TIER.to_wire(usage.source_tier),
        miss_reason=MISS_REASON.to_wire(usage.miss_reason),
        diverged_at=usage.diverged_at,
        fidelity=usage.fidelity,
        time_to_first_token=to_duration(usage.time_to_first_token_s),
        queue_duration=to_duration(usage.queue_s),
        blocks_fetched=usage.blocks_fetched,
        bytes_fetched=usage.bytes_fetched,
        fetch_duration=to_duration(usage.fetch_s),
        device_bytes=usage.device_bytes,
        tail_bytes=usage.tail_bytes,
        selections=usage.selections,
        is_recomputed=usage.is_recomputed,
    )
