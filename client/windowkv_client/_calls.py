"""The caller's arguments → requests. Pure: nothing here talks to anyone.

What protobuf itself would refuse with an error of its own (a lone surrogate, a negative token id, a number too large
for its field) is refused here with the error that the service would have given.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from windowkv.v1 import cache_pb2, generation_pb2, model_pb2, types_pb2
from windowkv_client._errors import (
    BadOption,
    BadSampling,
    BadTtl,
)
from windowkv_client._models import Cache, Codec, Durability, Retention, Selection, Task
from windowkv_client._options import Messages
from windowkv_client._prompts import prompt_input, token_id_list
from windowkv_client._ttl import Ttl, ttl_seconds

UNARY_TIMEOUT_S = 60.0
WORK_TIMEOUT_S = 600.0  # prefilling a document, writing an answer
UPDATABLE = ("ttl", "display_name", "labels", "alias", "pinned")
_SAMPLING_FIELDS = tuple(field.name for field in generation_pb2.Sampling.DESCRIPTOR.fields)


@dataclass(frozen=True)
class Call:
    """One call to the service. routing_key chooses the worker in a fleet; empty is any of them."""

    service: str
    method: str
    request: Message
    timeout_s: float
    request_id: str
    routing_key: str = ""


def create_cache(
    text: str | None = None,
    *,
    messages: Messages | None = None,
    token_ids: Sequence[int] | None = None,
    kept_ratio: float | None = None,
    method: str = "",
    task: Task | str | None = None,
    retention: Retention | str | None = None,
    min_fidelity: float | None = None,
    codec: Codec | str | None = None,
    ttl: Ttl | None = None,
    display_name: str = "",
    labels: Mapping[str, str] | None = None,
    alias: str = "",
    pinned: bool = False,
    durability: Durability | str | None = None,
    model: str = "",
    timeout: float = WORK_TIMEOUT_S,
    routing_key: str = "",
) -> Call:
    prompt = prompt_input(text, messages, token_ids)
    if prompt is None:
        raise TypeError("a cache needs a prompt: text, messages or token_ids")
    cache = cache_pb2.Cache(
        model=model, display_name=display_name, alias=alias, pinned=pinned, labels=labels or {}
    )
    if ttl is not None:
        _set_ttl(cache, ttl)
    cache.compression.CopyFrom(_compression(kept_ratio, method, task, retention, min_fidelity, codec))
    if durability is not None:
        cache.durability = cache_pb2.Durability.Value(f"DURABILITY_{Durability(durability).name}")
    request_id = _new_request_id()
    request = cache_pb2.CreateCacheRequest(cache=cache, input=prompt, request_id=request_id)
    # Until the service has named the cache, its content decides: equal documents meet at one worker.
    key = routing_key or hashlib.sha256(prompt.SerializeToString(deterministic=True)).hexdigest()
    return Call("CacheService", "CreateCache", request, timeout, request_id, key)


def get_cache(cache: Cache | str, timeout: float = UNARY_TIMEOUT_S) -> Call:
    name = cache_name(cache)
    return _unary("CacheService", "GetCache", cache_pb2.GetCacheRequest(name=name), timeout, name)


def list_caches(labels: Mapping[str, str] | None, page_size: int, page_token: str, timeout: float) -> Call:
    try:
        request = cache_pb2.ListCachesRequest(
            page_size=page_size, page_token=page_token, label_filter=labels or {}
        )
    except ValueError as error:
        raise BadOption(f"page_size: {error}", field="page_size") from None
    return _unary("CacheService", "ListCaches", request, timeout)


def update_cache(cache: Cache | str, *, timeout: float = UNARY_TIMEOUT_S, **changes: Any) -> Call:
    if unknown := changes.keys() - set(UPDATABLE):
        raise TypeError(f"a cache's {', '.join(sorted(unknown))} cannot be updated")
    changes = {name: value for name, value in changes.items() if value is not None}
    name = cache_name(cache)
    request = cache_pb2.UpdateCacheRequest(cache=cache_pb2.Cache(name=name))
    request.update_mask.paths.extend(sorted(changes))
    if "ttl" in changes:
        _set_ttl(request.cache, changes.pop("ttl"))
    request.cache.MergeFrom(cache_pb2.Cache(**changes))
    return _unary("CacheService", "UpdateCache", request, timeout, name)


def delete_cache(
    cache: Cache | str, *, allow_missing: bool = False, timeout: float = UNARY_TIMEOUT_S
) -> Call:
    name = cache_name(cache)
    request = cache_pb2.DeleteCacheRequest(name=name, allow_missing=allow_missing)
    return _unary("CacheService", "DeleteCache", request, timeout, name)


def generate(
    cache: Cache | str | None = None,
    text: str | None = None,
    *,
    messages: Messages | None = None,
    token_ids: Sequence[int] | None = None,
    selection: Selection | str | None = None,
    kept_ratio: float | None = None,
    min_fidelity: float | None = None,
    reselect_every: int | None = None,
    model: str = "",
    timeout: float = WORK_TIMEOUT_S,
    **sampling: Any,
) -> Call:
    request_id = _new_request_id()
    name = cache_name(cache) if cache is not None else ""
    prompt = prompt_input(text, messages, token_ids)
    if prompt is None and not name:
        raise TypeError("generate needs a cache, or a prompt: text, messages or token_ids")
    request = generation_pb2.GenerateRequest(
        model=model, cache=name, sampling=sampling_of(sampling), request_id=request_id
    )
    if prompt is not None:
        request.input.CopyFrom(prompt)
    wanted = _selection(selection, kept_ratio, min_fidelity, reselect_every)
    if wanted.ListFields():
        request.selection.CopyFrom(wanted)
    return Call("GenerationService", "Generate", request, timeout, request_id, name)


def get_model(model: str = "", timeout: float = UNARY_TIMEOUT_S) -> Call:
    return _unary("ModelService", "GetModel", model_pb2.GetModelRequest(model=model), timeout)


def count_tokens(
    text: str | None, messages: Messages | None, token_ids: Sequence[int] | None, timeout: float
) -> Call:
    request = model_pb2.CountTokensRequest(input=prompt_input(text, messages, token_ids))
    return _unary("ModelService", "CountTokens", request, timeout)


def tokenize(text: str | None, messages: Messages | None, add_special_tokens: bool, timeout: float) -> Call:
    prompt = prompt_input(text, messages, None)
    request = model_pb2.TokenizeRequest(input=prompt, add_special_tokens=add_special_tokens)
    return _unary("ModelService", "Tokenize", request, timeout)


def detokenize(token_ids: Sequence[int], timeout: float) -> Call:
    request = model_pb2.DetokenizeRequest(token_ids=token_id_list(token_ids))
    return _unary("ModelService", "Detokenize", request, timeout)


def without(options: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The options that travel; the one left out is the SDK's own business."""
    return {each: value for each, value in options.items() if each != name}


def cache_name(cache: Cache | str) -> str:
    return cache.name if isinstance(cache, Cache) else cache


def sampling_of(options: Mapping[str, Any]) -> generation_pb2.Sampling:
    """Sampling parameters; None and absent are the service's default."""
    if unknown := options.keys() - set(_SAMPLING_FIELDS):
        raise TypeError(f"unknown option: {', '.join(sorted(unknown))}")
    sampling = generation_pb2.Sampling()
    for name, value in options.items():
        if value is None:
            continue
        if name == "stop" and isinstance(value, str):
            value = [value]
        try:
            sampling.MergeFrom(generation_pb2.Sampling(**{name: value}))
        except ValueError as error:
            raise BadSampling(f"{name}: {error}", field=f"sampling.{name}") from None
    return sampling


def _unary(service: str, method: str, request: Message, timeout: float, routing_key: str = "") -> Call:
    return Call(service, method, request, timeout, _new_request_id(), routing_key)


def _new_request_id() -> str:
    return uuid.uuid4().hex


def _compression(
    kept_ratio: float | None,
    method: str,
    task: Task | str | None,
    retention: Retention | str | None,
    min_fidelity: float | None,
    codec: Codec | str | None,
) -> cache_pb2.Compression:
    compression = cache_pb2.Compression(method=method, kept_ratio=kept_ratio, min_fidelity=min_fidelity)
    if task is not None:
        compression.task = cache_pb2.Task.Value(f"TASK_{Task(task).name}")
    if retention is not None:
        compression.retention = cache_pb2.Retention.Value(f"RETENTION_{Retention(retention).name}")
    if codec is not None:
        compression.codec = types_pb2.Codec.Value(f"CODEC_{Codec(codec).name}")
    return compression


def _selection(
    selection: Selection | str | None,
    kept_ratio: float | None,
    min_fidelity: float | None,
    reselect_every: int | None,
) -> generation_pb2.Selection:
    message = generation_pb2.Selection(kept_ratio=kept_ratio, min_fidelity=min_fidelity)
    if selection is not None:
        mode = f"QUESTION_SELECTION_{Selection(selection).name}"
        message.mode = generation_pb2.QuestionSelection.Value(mode)
    if reselect_every is not None:
        try:
            message.reselect_every = reselect_every
        except ValueError as error:
            raise BadOption(f"reselect_every: {error}", field="selection.reselect_every") from None
    return message


def _set_ttl(cache: cache_pb2.Cache, ttl: Ttl) -> None:
    try:
        seconds = ttl_seconds(ttl)
        cache.ttl.FromNanoseconds(round(seconds * 1e9))
    except (ValueError, OverflowError) as error:
        raise BadTtl(str(error), field="cache.ttl") from None
